//! What the node needs to run its pods again while the API is away: its Pods, and the ConfigMaps and Secrets that they
//! name, as the API last gave them. Held here in memory, and on disk by [`crate::last_known`]. Decides nothing about a
//! pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use imbl::OrdMap;
use k8s_openapi::{ByteString, api::core::v1::Pod};
use kube::runtime::watcher;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    env,
    objects::{ObjectKey, Payload},
    pull_secret, spec, volumes,
};

/// How long the API is waited for before what is kept is used: for one that refuses connections not at all.
pub const API_ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// The form on disk.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptPods {
    #[serde(with = "fairlead_client::as_text")]
    pods: Vec<Arc<Pod>>,
    objects: Vec<KeptObject>,
}

impl KeptPods {
    /// Raise it with every change of the JSON form.
    pub const VERSION: u32 = 2;
    /// Version 1 knew no tokens, and is read as one that holds none.
    pub const OLDEST: u32 = 1;
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptObject {
    key: ObjectKey,
    /// `None` for an object that the API said not to exist: a pod to which it is optional runs without it.
    content: Option<KeptContent>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptContent {
    data: BTreeMap<String, ByteString>,
    type_: String,
}

/// The pods of this node and the objects that were read for them, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By uid.
    pods: OrdMap<String, Arc<Pod>>,
    objects: OrdMap<ObjectKey, Option<Arc<Payload>>>,
    /// The pods are all that the node knows: from disk, or listed by the API.
    is_complete: bool,
}

impl Snapshot {
    /// `None` where nothing was on disk and the API has not listed the pods yet.
    pub fn to_keep(&self) -> Option<KeptPods> {
        if !self.is_complete {
            return None;
        }
        let named = self.named();
        let objects = self.objects.iter().filter(|(key, _)| named.contains(key));
        let objects = objects
            .map(|(key, payload)| KeptObject { key: key.clone(), content: payload.as_deref().map(KeptContent::from) });
        Some(KeptPods { pods: self.pods.values().cloned().collect(), objects: objects.collect() })
    }

    /// The pods of `node_name` in `kept`.
    fn of(kept: KeptPods, node_name: &str) -> Self {
        let is_here = |pod: &Arc<Pod>| pod.spec.as_ref().is_some_and(|s| s.node_name.as_deref() == Some(node_name));
        let pods = kept.pods.into_iter().filter(is_here);
        let objects = kept.objects.into_iter();
        Self {
            pods: pods.filter_map(|pod| Some((pod.metadata.uid.clone()?, pod))).collect(),
            objects: objects.map(|one| (one.key, one.content.map(|content| Arc::new(content.into())))).collect(),
            is_complete: true,
        }
    }

    fn named(&self) -> BTreeSet<ObjectKey> {
        self.pods.values().flat_map(|pod| named(pod)).collect()
    }

    fn forget_unnamed(&mut self) {
        let named = self.named();
        let kept = self.objects.iter().filter(|(key, _)| named.contains(key));
        self.objects = kept.map(|(key, payload)| (key.clone(), payload.clone())).collect();
    }
}

impl From<&Payload> for KeptContent {
    fn from(payload: &Payload) -> Self {
        let data = payload.data.iter().map(|(name, bytes)| (name.clone(), ByteString(bytes.clone())));
        Self { data: data.collect(), type_: payload.type_.clone() }
    }
}

impl From<KeptContent> for Payload {
    fn from(content: KeptContent) -> Self {
        let data = content.data.into_iter().map(|(name, bytes)| (name, bytes.0));
        Self { data: data.collect(), type_: content.type_ }
    }
}

/// The objects that the pod's volumes, environments and image pulls refer to.
fn named(pod: &Pod) -> impl Iterator<Item = ObjectKey> {
    let of_environments = spec::all_containers(pod).flat_map(|container| env::references(pod, &container));
    volumes::referenced(pod).into_iter().chain(of_environments).chain(pull_secret::references(pod))
}

/// What is kept now. Cloning shares it.
#[derive(Clone)]
pub struct Kept(watch::Sender<Snapshot>);

impl Kept {
    /// Starts from what an earlier agent of `node_name` kept.
    pub fn new(last_known: Option<KeptPods>, node_name: &str) -> Self {
        Self(watch::Sender::new(last_known.map(|kept| Snapshot::of(kept, node_name)).unwrap_or_default()))
    }

    /// Every state from now on.
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.0.subscribe()
    }

    /// The pods as last known.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.0.borrow().pods.values().cloned().collect()
    }

    /// The API has listed the pods of this node: these, and no others.
    pub fn replace_pods(&self, pods: &[Arc<Pod>]) {
        self.0.send_modify(|known| {
            known.pods = pods.iter().filter_map(|pod| Some((pod.metadata.uid.clone()?, pod.clone()))).collect();
            known.is_complete = true;
            known.forget_unnamed();
        });
    }

    /// The API has this version of a pod.
    pub fn insert_pod(&self, pod: &Arc<Pod>) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        self.0.send_modify(|known| {
            known.pods.insert(uid, pod.clone());
        });
    }

    /// The API has the pod no more.
    pub fn remove_pod(&self, uid: &str) {
        self.0.send_modify(|known| {
            known.pods.remove(uid);
            known.forget_unnamed();
        });
    }

    /// The object as last known; the inner `None` where it was known not to exist.
    pub fn object(&self, key: &ObjectKey) -> Option<Option<Arc<Payload>>> {
        self.0.borrow().objects.get(key).cloned()
    }

    /// The API has the object so.
    pub fn insert_object(&self, key: &ObjectKey, payload: Option<Arc<Payload>>) {
        self.0.send_if_modified(|known| {
            let is_change = known.objects.get(key) != Some(&payload);
            if is_change {
                known.objects.insert(key.clone(), payload);
            }
            is_change
        });
    }
}

/// The API did not answer, or only that it is not able to: what is kept holds. A refusal is an answer.
pub fn is_away(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => is_unanswered(error),
        watcher::Error::WatchError(status) => is_unable(status),
        watcher::Error::NoResourceVersion => true,
    }
}

/// The same of a request.
pub fn is_unanswered(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => is_unable(status),
        _ => true,
    }
}

fn is_unable(status: &kube::core::Status) -> bool {
    status.code >= 500 || status.code == 429
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{last_known::LastKnown, pods::objects::ObjectKind};

    fn pod(uid: &str, node: &str) -> Arc<Pod> {
        let value = json!({
            "metadata": { "namespace": "default", "name": uid, "uid": uid, "resourceVersion": "7" },
            "spec": {
                "nodeName": node,
                "imagePullSecrets": [{ "name": "registry" }],
                "initContainers": [{ "name": "init", "envFrom": [{ "secretRef": { "name": "env" } }] }],
                "containers": [{ "name": "app" }],
                "volumes": [{ "name": "v", "configMap": { "name": "files" } }],
            },
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn key(kind: ObjectKind, name: &str) -> ObjectKey {
        ObjectKey { kind, namespace: "default".into(), name: name.into() }
    }

    fn payload(bytes: &[u8]) -> Option<Arc<Payload>> {
        let data = BTreeMap::from([("key".to_owned(), bytes.to_vec())]);
        Some(Arc::new(Payload { data, type_: "Opaque".into() }))
    }

    fn reloaded(kept: &Kept, node: &str) -> Kept {
        let directory = tempfile::tempdir().unwrap();
        let file = LastKnown::<KeptPods>::new(directory.path(), "pods", KeptPods::VERSION);
        file.store(&kept.0.borrow().to_keep().expect("listed")).unwrap();
        Kept::new(file.load().unwrap(), node)
    }

    #[test]
    fn pods_and_what_they_name_are_kept_and_nothing_else() {
        let kept = Kept::new(None, "a");
        kept.replace_pods(&[pod("1", "a")]);
        let files = key(ObjectKind::ConfigMap, "files");
        let (env, registry) = (key(ObjectKind::Secret, "env"), key(ObjectKind::Secret, "registry"));
        kept.insert_object(&files, payload(b"\xff\0"));
        kept.insert_object(&env, None);
        kept.insert_object(&registry, payload(b"r"));
        let unnamed = key(ObjectKind::Secret, "files");
        kept.insert_object(&unnamed, payload(b"u"));
        let loaded = reloaded(&kept, "a");
        assert_eq!(loaded.pods(), [pod("1", "a")]);
        assert_eq!(loaded.object(&files), Some(payload(b"\xff\0")));
        assert_eq!(loaded.object(&env), Some(None), "known not to exist");
        assert_eq!(loaded.object(&registry), Some(payload(b"r")));
        assert_eq!(loaded.object(&unnamed), None);
        assert_eq!(reloaded(&kept, "b").pods(), [], "another node's pods are not this one's");
    }

    #[test]
    fn nothing_is_kept_before_the_first_list_of_the_pods() {
        let kept = Kept::new(None, "a");
        kept.insert_pod(&pod("1", "a"));
        kept.insert_object(&key(ObjectKind::ConfigMap, "files"), payload(b"f"));
        assert!(kept.0.borrow().to_keep().is_none());
    }

    #[test]
    fn an_object_that_the_api_tells_before_it_lists_the_pods_is_kept_with_the_pods_from_disk() {
        let kept = Kept::new(None, "a");
        kept.replace_pods(&[pod("1", "a")]);
        let loaded = reloaded(&kept, "a");
        let files = key(ObjectKind::ConfigMap, "files");
        loaded.insert_object(&files, payload(b"new"));
        let loaded = reloaded(&loaded, "a");
        assert_eq!((loaded.pods(), loaded.object(&files)), (vec![pod("1", "a")], Some(payload(b"new"))));
    }

    #[test]
    fn objects_go_with_the_last_pod_that_names_them() {
        let kept = Kept::new(None, "a");
        kept.replace_pods(&[pod("1", "a"), pod("2", "a")]);
        let files = key(ObjectKind::ConfigMap, "files");
        kept.insert_object(&files, payload(b"f"));
        kept.remove_pod("1");
        assert!(kept.object(&files).is_some());
        kept.remove_pod("2");
        assert!(kept.object(&files).is_none());
    }

    #[test]
    fn a_refusal_is_an_answer_and_an_overload_is_none() {
        let error = |code: u16| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
        };
        assert!(is_away(&error(503)) && is_away(&error(429)) && is_away(&watcher::Error::NoResourceVersion));
        assert!(!is_away(&error(403)) && !is_away(&error(404)));
    }
}
