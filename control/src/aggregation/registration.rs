//! APIServices of this server's own groups: those of custom resources are kept as they must be at all times, those of
//! built-in groups are made at the start (by the bootstrap) and are removed there if they are no longer served.
//!
//! Which are kept is said by a label; one without it is never touched.
//!
//! Source: `autoregister_controller.go` of kube-aggregator, `crdregistration_controller.go` of kube-apiserver.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::Client;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{backend::RESOURCE, kept_object::Repair};
use crate::{
    engine::{Failure, Outcome, WorkQueue, work},
    kinds::{Kind, Kinds, Registry, api_service, group_priority},
    reflector::{Reflector, StoreUpdate},
    store::{Snapshot, Store},
};

const COLLECTION: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
/// Value of the label for what is kept at all times.
const ALWAYS: &str = "true";
/// Value of the label for what is made at the start.
const AT_START: &str = "onstart";
/// APIServices that are written at a time.
const CONCURRENCY: usize = 5;
/// Priorities of the groups of custom resources.
pub const CUSTOM: group_priority::Priority = group_priority::Priority { group: 1_000, version: 100 };

/// Keeps the APIServices.
pub struct Registration {
    store: Arc<dyn Store>,
    kinds: Registry,
    client: Client,
    /// Those that were made at an earlier start, until they were looked at.
    at_start: Mutex<BTreeSet<Arc<str>>>,
    queue: Arc<WorkQueue<Arc<str>>>,
}

impl Registration {
    /// `client` may write all APIServices.
    pub fn new(store: Arc<dyn Store>, kinds: Registry, client: Client) -> Arc<Self> {
        let snapshot = store.snapshot();
        let made = snapshot.list(RESOURCE, "", None).filter(|(_, object)| label(object) == AT_START);
        let at_start = made.map(|(name, _)| name.clone()).collect();
        let queue = Arc::new(WorkQueue::new("apiservice-registration"));
        Arc::new(Self { store, kinds, client, at_start: Mutex::new(at_start), queue })
    }

    /// Keeps them, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let registration = self.clone();
        let reconcile = move |name: Arc<str>| {
            let registration = registration.clone();
            async move { registration.reconcile(&name).await }
        };
        let working = work("apiservice-registration", self.queue.clone(), CONCURRENCY, stop.clone(), reconcile);
        tokio::join!(working, self.follow(stop));
    }

    /// Enqueues what has to be repaired.
    async fn follow(&self, stop: CancellationToken) {
        let mut served = self.kinds.subscribe();
        let mut reflector = Reflector::new(self.store.clone(), [RESOURCE]);
        loop {
            let names = tokio::select! {
                update = reflector.next() => match update {
                    StoreUpdate::Listed(snapshot) => self.names_to_enqueue(&snapshot),
                    StoreUpdate::Changed(events) => events.iter().map(|event| event.key.name.clone()).collect(),
                },
                Ok(()) = served.changed() => self.names_to_enqueue(&self.store.snapshot()),
                () = stop.cancelled() => return,
            };
            names.into_iter().for_each(|name| self.queue.add(name));
        }
    }

    fn names_to_enqueue(&self, snapshot: &Snapshot) -> BTreeSet<Arc<str>> {
        let mut at_start = self.at_start.lock();
        let names = names_to_repair(snapshot, &self.kinds.snapshot(), &at_start);
        // The others are as they must be.
        at_start.retain(|name| names.contains(name));
        names
    }

    async fn reconcile(&self, name: &Arc<str>) -> Result<Outcome, Failure> {
        let kinds = self.kinds.snapshot();
        let wanted = name.split_once('.').and_then(|(version, group)| wanted(&kinds, group, version));
        let at_start = self.at_start.lock().contains(name);
        if let Some(repair) = repair(&self.store.snapshot(), &kinds, name, wanted, at_start) {
            repair.carry_out(&self.client, COLLECTION, name).await?;
        }
        self.at_start.lock().remove(name);
        Ok(Outcome::Done)
    }
}

/// Value of the label that says who keeps it.
fn label(object: &crate::store::Object) -> &str {
    object.header().label(api_service::AUTO_MANAGED).unwrap_or_default()
}

/// The APIService of a version of a group, if that has custom resources and no other kinds.
fn wanted(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut served = kinds.iter().filter(|kind| kind.group == group && kind.version == version);
    served.any(|kind| has_own_api_service(kind)).then(|| of_custom(group, version))
}

/// Whether a kind is of a version of a group that has custom resources and no other kinds.
fn has_own_api_service(kind: &Kind) -> bool {
    kind.custom.is_some() && group_priority::built_in(&kind.group, &kind.version).is_none()
}

fn of_custom(group: &str, version: &str) -> Value {
    let mut object = api_service::local(group, version, CUSTOM);
    object["metadata"]["labels"][api_service::AUTO_MANAGED] = ALWAYS.into();
    object
}

/// The APIServices that are not as they must be, by name.
fn names_to_repair(snapshot: &Snapshot, kinds: &Kinds, at_start: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
    let custom = kinds.iter().filter(|kind| has_own_api_service(kind));
    let mut wanted: BTreeMap<Arc<str>, Value> = custom
        .map(|kind| (format!("{}.{}", kind.version, kind.group).into(), of_custom(&kind.group, &kind.version)))
        .collect();
    let stored = snapshot.list(RESOURCE, "", None);
    let mut names: BTreeSet<Arc<str>> = stored
        .filter(|(name, _)| {
            let wanted = wanted.remove(&***name);
            repair(snapshot, kinds, name, wanted, at_start.contains(&***name)).is_some()
        })
        .map(|(name, _)| name.clone())
        .collect();
    names.extend(wanted.into_keys());
    names
}

/// What has to be done to one APIService, which is to be like `wanted`. `at_start` is told of one that an earlier start
/// made and that was not looked at since this one.
fn repair(snapshot: &Snapshot, kinds: &Kinds, name: &str, wanted: Option<Value>, at_start: bool) -> Option<Repair> {
    let Some(object) = snapshot.get(RESOURCE, name) else { return wanted.map(Repair::Create) };
    let managed = match label(object) {
        ALWAYS => !is_built_in(name, kinds),
        AT_START => at_start && !is_built_in(name, kinds),
        _ => false,
    };
    if object.header().deleting() || !managed {
        return None;
    }
    let current: Value = serde_json::from_slice(&object.json()).ok()?;
    match wanted {
        None => Some(Repair::Delete { uid: object.header().uid().to_string() }),
        Some(wanted) if current["spec"] != wanted["spec"] => {
            let mut repaired = current;
            repaired["spec"] = wanted["spec"].clone();
            Some(Repair::Replace(repaired))
        }
        Some(_) => None,
    }
}

/// Whether an APIService is one that the bootstrap makes.
fn is_built_in(name: &str, kinds: &Kinds) -> bool {
    let Some((version, group)) = name.split_once('.') else { return false };
    group_priority::built_in(group, version).is_some() && kinds.serves_version(group, version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        encode,
        store::{EventType, Key, Object},
    };

    fn repairs_of(objects: &[Value], at_start: bool) -> Vec<(String, Repair)> {
        let mut snapshot = Snapshot::default();
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap();
            let stored = Object::new(encode::unserved(object), 1, EventType::Added);
            snapshot.load(Key { resource: RESOURCE.into(), name: name.into() }, Arc::new(stored));
        }
        let kinds = Kinds::built_in();
        let names: BTreeSet<Arc<str>> = snapshot.list(RESOURCE, "", None).map(|(name, _)| name.clone()).collect();
        let at_start = if at_start { names } else { BTreeSet::new() };
        let found = names_to_repair(&snapshot, &kinds, &at_start).into_iter();
        found
            .map(|name| (name.to_string(), repair(&snapshot, &kinds, &name, None, at_start.contains(&name)).unwrap()))
            .collect()
    }

    fn labelled(group: &str, label: &str) -> Value {
        let mut object = api_service::local(group, "v1", CUSTOM);
        object["metadata"]["labels"][api_service::AUTO_MANAGED] = label.into();
        object["metadata"]["uid"] = "u".into();
        object
    }

    #[test]
    fn what_is_served_no_more_is_deleted_if_it_was_made_here() {
        let delete = |name: &str| vec![(name.to_owned(), Repair::Delete { uid: "u".into() })];
        assert_eq!(repairs_of(&[labelled("a.io", ALWAYS)], false), delete("v1.a.io"));
        assert_eq!(repairs_of(&[labelled("a.io", AT_START)], true), delete("v1.a.io"));
        assert_eq!(repairs_of(&[labelled("a.io", AT_START)], false), []);
        assert_eq!(repairs_of(&[labelled("a.io", "false")], true), [], "somebody else's");
        assert_eq!(repairs_of(&[labelled("apps", ALWAYS), labelled("batch", AT_START)], true), []);
    }
}
