//! Distributes endpoints over slices with as few changes as possible: existing slices are kept, then filled, and only
//! then is a slice added.
//!
//! Source: Kubernetes' `endpointslice` reconciler.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{endpoints::EndpointGroup, ports::Port};

/// Most endpoints in one slice.
pub const MAX_ENDPOINTS: usize = 100;
/// Label with the Service that a slice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label with the writer of a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// What all slices of one Service have in common.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Of the Service.
    pub namespace: String,
    /// The Service's name: first part of the slices' names, and their label `kubernetes.io/service-name`.
    pub service: String,
    /// All that a slice has.
    pub labels: BTreeMap<String, String>,
    /// All that a slice has.
    pub annotations: BTreeMap<String, String>,
    /// The Service, so that the slices go with it.
    pub owner: OwnerReference,
    /// Families that get an empty slice when there are no endpoints, so that readers know the Service is handled.
    pub placeholders: Vec<String>,
}

/// The slices to write. Those to be updated carry the resourceVersion they were decided on.
#[derive(Debug, Default)]
pub struct SlicePlan {
    /// New ones; the server names them.
    pub create: Vec<EndpointSlice>,
    /// With their new contents.
    pub update: Vec<EndpointSlice>,
    /// As they were read.
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// An existing slice and what it is to hold.
struct SliceDraft {
    standing: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    ports: Vec<Port>,
    changed: bool,
}

/// Compares the endpoints with the existing slices (all of one manager and Service).
pub fn plan(
    frame: &Frame,
    desired: BTreeMap<EndpointGroup, Vec<Endpoint>>,
    standing: &[Arc<EndpointSlice>],
) -> SlicePlan {
    let mut plan = SlicePlan::default();
    let mut by_group: BTreeMap<EndpointGroup, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in standing {
        by_group.entry(group_of(slice)).or_default().push(slice.clone());
    }
    let mut spare = Vec::new();
    let mut added: Vec<(EndpointGroup, Vec<Endpoint>)> = Vec::new();
    let empty: BTreeSet<&String> =
        frame.placeholders.iter().filter(|family| !desired.keys().any(|g| g.address_type == **family)).collect();
    for family in empty {
        let group = EndpointGroup { address_type: family.clone(), ports: Vec::new() };
        match by_group.remove(&group) {
            Some(mut slices) => {
                let kept = slices.remove(0);
                update_if_changed(frame, &mut plan, keep(kept, &mut HashMap::new()));
                spare.extend(slices);
            }
            None => added.push((group, Vec::new())),
        }
    }
    for (group, endpoints) in desired {
        let (drafts, rest) = fit(endpoints, by_group.remove(&group).unwrap_or_default());
        for draft in drafts {
            if draft.endpoints.is_empty() {
                spare.push(draft.standing);
            } else {
                update_if_changed(frame, &mut plan, draft);
            }
        }
        added.extend(rest.chunks(MAX_ENDPOINTS).map(|chunk| (group.clone(), chunk.to_vec())));
    }
    spare.extend(by_group.into_values().flatten());
    for (group, endpoints) in added {
        place(frame, &mut plan, &mut spare, group, endpoints);
    }
    plan.delete = spare;
    plan
}

/// New endpoints reuse a slice that would be deleted, if there is one of their family.
fn place(
    frame: &Frame,
    plan: &mut SlicePlan,
    spare: &mut Vec<Arc<EndpointSlice>>,
    group: EndpointGroup,
    endpoints: Vec<Endpoint>,
) {
    match spare.iter().position(|slice| slice.address_type == group.address_type) {
        Some(at) => {
            let draft = SliceDraft { standing: spare.remove(at), endpoints, ports: group.ports, changed: true };
            update_if_changed(frame, plan, draft);
        }
        None => plan.create.push(new_slice(frame, &group, endpoints)),
    }
}

/// Keeps what exists, then fills slices that change anyway, then the fullest with room. Returns the endpoints without a
/// slice.
fn fit(desired: Vec<Endpoint>, slices: Vec<Arc<EndpointSlice>>) -> (Vec<SliceDraft>, Vec<Endpoint>) {
    let order: Vec<String> = desired.iter().map(identity).collect();
    let mut wanted: HashMap<String, Endpoint> = desired.into_iter().map(|e| (identity(&e), e)).collect();
    let mut drafts: Vec<SliceDraft> = slices.into_iter().map(|slice| keep(slice, &mut wanted)).collect();
    let mut rest: Vec<Endpoint> = order.iter().filter_map(|id| wanted.remove(id)).collect();
    rest.reverse();
    for draft in drafts.iter_mut().filter(|draft| draft.changed && !draft.endpoints.is_empty()) {
        fill(draft, &mut rest);
    }
    drafts.sort_by_key(|draft| std::cmp::Reverse(draft.endpoints.len()));
    for draft in drafts.iter_mut().filter(|draft| draft.endpoints.len() < MAX_ENDPOINTS) {
        fill(draft, &mut rest);
    }
    rest.reverse();
    (drafts, rest)
}

fn fill(draft: &mut SliceDraft, rest: &mut Vec<Endpoint>) {
    while draft.endpoints.len() < MAX_ENDPOINTS
        && let Some(endpoint) = rest.pop()
    {
        draft.endpoints.push(endpoint);
        draft.changed = true;
    }
}

/// The slice with those of its endpoints that are wanted, in their order, each as it is wanted.
fn keep(slice: Arc<EndpointSlice>, wanted: &mut HashMap<String, Endpoint>) -> SliceDraft {
    let mut changed = false;
    let mut endpoints = Vec::new();
    for endpoint in &slice.endpoints {
        match wanted.remove(&identity(endpoint)) {
            Some(now) => {
                changed |= *endpoint != now;
                endpoints.push(now);
            }
            None => changed = true,
        }
    }
    SliceDraft { ports: group_of(&slice).ports, standing: slice, endpoints, changed }
}

fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref();
    let uid = target.and_then(|t| t.uid.as_deref()).unwrap_or_default();
    format!("{}|{uid}", endpoint.addresses.join(","))
}

fn update_if_changed(frame: &Frame, plan: &mut SlicePlan, draft: SliceDraft) {
    let mut slice = (*draft.standing).clone();
    let labels_differ = slice.metadata.labels.as_ref() != Some(&frame.labels);
    let annotations_differ = slice.metadata.annotations.clone().unwrap_or_default() != frame.annotations;
    if !draft.changed && !labels_differ && !annotations_differ {
        return;
    }
    slice.metadata.labels = Some(frame.labels.clone());
    slice.metadata.annotations = (!frame.annotations.is_empty()).then(|| frame.annotations.clone());
    slice.endpoints = draft.endpoints;
    slice.ports = Some(draft.ports.iter().map(Port::to_slice_port).collect());
    plan.update.push(slice);
}

fn new_slice(frame: &Frame, group: &EndpointGroup, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", frame.service)),
            namespace: Some(frame.namespace.clone()),
            labels: Some(frame.labels.clone()),
            annotations: (!frame.annotations.is_empty()).then(|| frame.annotations.clone()),
            owner_references: Some(vec![frame.owner.clone()]),
            ..Default::default()
        },
        address_type: group.address_type.clone(),
        endpoints,
        ports: Some(group.ports.iter().map(Port::to_slice_port).collect()),
    }
}

fn group_of(slice: &EndpointSlice) -> EndpointGroup {
    let mut ports: Vec<Port> = slice.ports.iter().flatten().map(Port::read).collect();
    ports.sort();
    EndpointGroup { address_type: slice.address_type.clone(), ports }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    fn frame() -> Frame {
        Frame {
            namespace: "default".into(),
            service: "web".into(),
            labels: [(SERVICE_NAME.to_owned(), "web".to_owned())].into(),
            annotations: BTreeMap::new(),
            owner: OwnerReference::default(),
            placeholders: vec!["IPv4".into()],
        }
    }

    fn group(port: i32) -> EndpointGroup {
        let port = Port { name: String::new(), protocol: "TCP".into(), port: Some(port), app_protocol: None };
        EndpointGroup { address_type: "IPv4".into(), ports: vec![port] }
    }

    fn endpoint(n: usize) -> Endpoint {
        let target = ObjectReference { uid: Some(format!("uid-{n}")), ..Default::default() };
        Endpoint {
            addresses: vec![format!("10.0.{}.{}", n / 256, n % 256)],
            target_ref: Some(target),
            ..Default::default()
        }
    }

    fn desired(port: i32, endpoints: impl IntoIterator<Item = usize>) -> BTreeMap<EndpointGroup, Vec<Endpoint>> {
        [(group(port), endpoints.into_iter().map(endpoint).collect())].into()
    }

    /// What the API would hold after `plan`.
    fn stored(plan: SlicePlan, before: &[Arc<EndpointSlice>]) -> Vec<Arc<EndpointSlice>> {
        let name = |slice: &EndpointSlice| slice.metadata.name.clone();
        let touched: Vec<_> = plan.update.iter().map(name).chain(plan.delete.iter().map(|s| name(s))).collect();
        let mut after: Vec<_> = before.iter().filter(|s| !touched.contains(&name(s))).cloned().collect();
        after.extend(plan.update.into_iter().map(Arc::new));
        for mut slice in plan.create {
            slice.metadata.name = Some(format!("web-{}-{}", after.len(), before.len()));
            after.push(Arc::new(slice));
        }
        after
    }

    fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
        slices.iter().map(|s| s.endpoints.len()).collect()
    }

    #[test]
    fn more_than_a_hundred_endpoints_take_several_slices_and_equal_input_changes_nothing() {
        let first = plan(&frame(), desired(80, 0..250), &[]);
        let slices = stored(first, &[]);
        assert_eq!(sizes(&slices), [100, 100, 50]);
        let again = plan(&frame(), desired(80, 0..250), &slices);
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
    }

    #[test]
    fn one_endpoint_more_or_less_touches_one_slice() {
        let slices = stored(plan(&frame(), desired(80, 0..250), &[]), &[]);
        let more = plan(&frame(), desired(80, 0..251), &slices);
        assert_eq!((more.create.len(), more.update.len(), more.delete.len()), (0, 1, 0));
        let fewer = plan(&frame(), desired(80, (0..250).filter(|n| *n != 7)), &slices);
        assert_eq!((fewer.create.len(), fewer.update.len(), fewer.delete.len()), (0, 1, 0));
        let replaced = plan(&frame(), desired(80, (0..251).filter(|n| *n != 7)), &slices);
        assert_eq!((replaced.create.len(), replaced.update.len(), replaced.delete.len()), (0, 1, 0));
    }

    #[test]
    fn a_changed_port_reuses_the_slice() {
        let slices = stored(plan(&frame(), desired(80, 0..3), &[]), &[]);
        let changed = plan(&frame(), desired(81, 0..3), &slices);
        assert_eq!((changed.create.len(), changed.update.len(), changed.delete.len()), (0, 1, 0));
        assert_eq!(changed.update[0].ports.as_ref().and_then(|p| p[0].port), Some(81));
    }

    #[test]
    fn without_endpoints_an_empty_slice_stands() {
        let slices = stored(plan(&frame(), BTreeMap::new(), &[]), &[]);
        assert_eq!(sizes(&slices), [0]);
        let again = plan(&frame(), BTreeMap::new(), &slices);
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
        let filled = stored(plan(&frame(), desired(80, 0..2), &slices), &slices);
        assert_eq!(sizes(&filled), [2]);
        let emptied = stored(plan(&frame(), BTreeMap::new(), &filled), &filled);
        assert_eq!(sizes(&emptied), [0]);
    }

    #[test]
    fn labels_of_the_service_reach_slices_that_do_not_change_otherwise() {
        let slices = stored(plan(&frame(), desired(80, 0..1), &[]), &[]);
        let mut relabelled = frame();
        relabelled.labels.insert("tier".into(), "front".into());
        assert_eq!(plan(&relabelled, desired(80, 0..1), &slices).update.len(), 1);
    }
}
