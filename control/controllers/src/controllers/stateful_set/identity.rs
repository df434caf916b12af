//! Names, ordinals and pods of a StatefulSet. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::super::{history::HASH_LABEL, pod_template};
use crate::objects::owners::controller_reference;

/// Label with the pod's own name.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// Label with the pod's ordinal.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// A template that the set has or had.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Name of its ControllerRevision.
    pub name: String,
    /// The template.
    pub template: PodTemplateSpec,
}

/// The set's name and the ordinal in the name of a pod. Source: `getParentNameAndOrdinal`.
pub fn parent_and_ordinal(pod: &str) -> Option<(&str, i32)> {
    let (parent, ordinal) = pod.rsplit_once('-')?;
    if ordinal.is_empty() || !ordinal.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((parent, ordinal.parse().ok()?))
}

/// The ordinal in the pod's name; `None` where it has none.
pub fn ordinal(pod: &Pod) -> Option<i32> {
    parent_and_ordinal(pod.metadata.name.as_deref()?).map(|(_, ordinal)| ordinal)
}

/// Whether the pod's name is one that the set gives.
pub fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    let parent = pod.metadata.name.as_deref().and_then(parent_and_ordinal).map(|(parent, _)| parent);
    parent.is_some() && parent == set.metadata.name.as_deref()
}

/// The ordinals that the set asks for.
pub fn ordinals(set: &StatefulSet) -> std::ops::Range<i32> {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|s| s.ordinals.as_ref()).and_then(|ordinals| ordinals.start).unwrap_or(0).max(0);
    start..start.saturating_add(replicas(set))
}

/// How many pods the set asks for.
pub fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1).max(0)
}

/// `web-0`
pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

/// The revision that the pod runs: the name of its ControllerRevision.
pub fn revision_of(pod: &Pod) -> &str {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL));
    label.map(String::as_str).unwrap_or_default()
}

fn claim_templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten())
}

fn template_name(template: &PersistentVolumeClaim) -> &str {
    template.metadata.name.as_deref().unwrap_or_default()
}

/// The names of the claims of the pod with this ordinal, in the order of their templates.
pub fn claim_names(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = String> {
    let own = set.metadata.name.as_deref().unwrap_or_default();
    claim_templates(set).map(move |template| format!("{}-{own}-{ordinal}", template_name(template)))
}

/// The claim template and the set that may have given a claim its name: `data-my-web-0` is `data-my` of `web`, or
/// `data` of `my-web`.
pub fn makers_of_claim(claim: &str) -> impl Iterator<Item = (&str, &str)> {
    let parent = parent_and_ordinal(claim).map(|(parent, _)| parent).unwrap_or_default();
    parent.match_indices('-').filter_map(|(at, _)| Some((parent.get(..at)?, parent.get(at..)?.strip_prefix('-')?)))
}

/// Whether the set has a claim template of this name.
pub fn has_claim_template(set: &StatefulSet, name: &str) -> bool {
    claim_templates(set).any(|template| template_name(template) == name)
}

/// The claims of the pod with this ordinal, in the order of their templates.
pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let claim = |(template, name): (&PersistentVolumeClaim, String)| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels),
                ..template.metadata.clone()
            },
            spec: template.spec.clone(),
            status: None,
        }
    };
    claim_templates(set).zip(claim_names(set, ordinal)).map(claim).collect()
}

/// The pod with this ordinal, made of a template of the set.
pub fn pod(set: &StatefulSet, revision: &Revision, ordinal: i32) -> Pod {
    let name = pod_name(set, ordinal);
    let mut pod = pod_template::pod(revision.template.clone(), &set.metadata, controller_reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(identity(&name, ordinal));
    labels.insert(HASH_LABEL.into(), revision.name.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.as_ref().and_then(|s| s.service_name.clone()).filter(|name| !name.is_empty());
    spec.volumes = volumes(set, ordinal, spec.volumes.take());
    pod.metadata.name = Some(name);
    pod
}

/// Labels by which a pod is known.
pub fn identity(name: &str, ordinal: i32) -> BTreeMap<String, String> {
    [(POD_NAME.to_owned(), name.to_owned()), (POD_INDEX.to_owned(), ordinal.to_string())].into()
}

/// Whether the pod bears its own name as a label.
pub fn identity_matches(pod: &Pod) -> bool {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_NAME));
    label.is_some() && label == pod.metadata.name.as_ref()
}

/// Whether the pod's volumes are the claims of its ordinal.
pub fn storage_matches(set: &StatefulSet, pod: &Pod, ordinal: i32) -> bool {
    let own: BTreeMap<&str, &Volume> =
        pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).map(|volume| (volume.name.as_str(), volume)).collect();
    claim_volumes(set, ordinal).iter().all(|wanted| {
        let found = own.get(wanted.name.as_str()).and_then(|volume| volume.persistent_volume_claim.as_ref());
        found.map(|claim| &claim.claim_name) == wanted.persistent_volume_claim.as_ref().map(|claim| &claim.claim_name)
    })
}

/// `own` volumes with those of the claims, which replace those of the same name.
pub fn volumes(set: &StatefulSet, ordinal: i32, own: Option<Vec<Volume>>) -> Option<Vec<Volume>> {
    let mut volumes = claim_volumes(set, ordinal);
    let names: Vec<String> = volumes.iter().map(|volume| volume.name.clone()).collect();
    volumes.extend(own.into_iter().flatten().filter(|volume| !names.contains(&volume.name)));
    (!volumes.is_empty()).then_some(volumes)
}

fn claim_volumes(set: &StatefulSet, ordinal: i32) -> Vec<Volume> {
    let volume = |(template, claim_name): (&PersistentVolumeClaim, String)| Volume {
        name: template_name(template).to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None }),
        ..Default::default()
    };
    claim_templates(set).zip(claim_names(set, ordinal)).map(volume).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controllers::stateful_set::fixtures::{stateful_set, template};

    #[test]
    fn ordinals_are_read_from_names() {
        let cases = [
            ("web-0", Some(("web", 0))),
            ("my-web-12", Some(("my-web", 12))),
            ("web", None),
            ("web-", None),
            ("web-a1", None),
            ("web--1", Some(("web-", 1))),
            ("web-99999999999", None),
        ];
        for (name, expected) in cases {
            assert_eq!(parent_and_ordinal(name), expected, "{name}");
        }
        let set = stateful_set(3, json!({"spec": {"ordinals": {"start": 5}}}));
        assert_eq!(ordinals(&set), 5..8);
        let far = stateful_set(i32::MAX, json!({"spec": {"ordinals": {"start": i32::MAX}}}));
        assert!(ordinals(&far).is_empty());
    }

    #[test]
    fn a_claim_names_its_template_and_its_set() {
        let makers = |claim: &'static str| makers_of_claim(claim).collect::<Vec<_>>();
        assert_eq!(makers("data-my-web-0"), [("data", "my-web"), ("data-my", "web")]);
        assert_eq!(makers("data-web-12"), [("data", "web")]);
        for other in ["data-web", "web-0", "data", ""] {
            assert_eq!(makers(other), [], "{other}");
        }
    }

    #[test]
    fn a_pod_has_its_name_its_labels_and_its_claims() {
        let set = stateful_set(
            1,
            json!({"spec": {"serviceName": "svc", "volumeClaimTemplates": [
                {"metadata": {"name": "data", "labels": {"tier": "db"}},
                    "spec": {"accessModes": ["ReadWriteOnce"]}}]}}),
        );
        let mut template = template("one");
        let own = json!([{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]);
        template.spec.get_or_insert_default().volumes = serde_json::from_value(own).expect("volumes");
        let made = pod(&set, &Revision { name: "web-abc".into(), template }, 2);
        let labels = made.metadata.labels.clone().expect("labels");
        assert_eq!((&*labels[POD_NAME], &*labels[POD_INDEX], &*labels[HASH_LABEL]), ("web-2", "2", "web-abc"));
        let spec = made.spec.as_ref().expect("a spec");
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-2"), Some("svc")));
        let volumes: Vec<_> = spec.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
        assert_eq!(volumes, ["data", "tmp"]);
        assert!(identity_matches(&made) && storage_matches(&set, &made, 2) && !storage_matches(&set, &made, 3));
        let claim = &claims(&set, 2)[0];
        assert_eq!(claim.metadata.name.as_deref(), Some("data-web-2"));
        assert_eq!(claim.metadata.labels.as_ref().map(|labels| labels.len()), Some(2));
        assert!(is_member(&set, &made));
        let mut other = made.clone();
        other.metadata.name = Some("other-2".into());
        assert!(!is_member(&set, &other) && !identity_matches(&other));
    }
}
