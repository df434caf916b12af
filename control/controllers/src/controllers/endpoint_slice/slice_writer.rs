//! The slices that one controller writes. What was written is remembered until the view shows it: deciding on an older
//! view would write slices twice.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use fairlead_client::Api;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Client,
    api::{DeleteParams, PostParams, Preconditions},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::slices::{MANAGED_BY, SERVICE_NAME, SlicePlan};
use crate::{
    engine::{Failure, Informer, Key, ObjectChange, WorkQueue, api_code, is_gone_or_taken, is_namespace_terminating},
    objects::informer_index::of_service,
};

/// A write that the view has not shown after this long is taken as superseded.
pub const SUPERSEDED_AFTER: Duration = Duration::from_secs(30);

/// Reads and writes the slices of one controller.
pub struct SliceWriter {
    /// Its name, in the label `endpointslice.kubernetes.io/managed-by`.
    manager: &'static str,
    client: Client,
    slices: Arc<Informer<EndpointSlice>>,
    /// What was written for each Service and is not in the view yet.
    unseen: Mutex<HashMap<Key, HashMap<Key, Written>>>,
}

enum Written {
    /// The slice at this revision, or a later one.
    Present {
        revision: u64,
        at: Instant,
    },
    Gone {
        uid: Option<String>,
        at: Instant,
    },
}

impl SliceWriter {
    /// Of the controller with this name; `slices` is the view of them all.
    pub fn new(manager: &'static str, client: Client, slices: Arc<Informer<EndpointSlice>>) -> Self {
        Self { manager, client, slices, unseen: Mutex::default() }
    }

    /// The labels of the slices of `service`, beside `others`.
    pub fn labels(&self, service: &Key, others: Option<BTreeMap<String, String>>) -> BTreeMap<String, String> {
        let mut labels = others.unwrap_or_default();
        labels.insert(SERVICE_NAME.into(), service.name.clone());
        labels.insert(MANAGED_BY.into(), self.manager.into());
        labels
    }

    /// Forgets a Service that was deleted.
    pub fn forget(&self, service: &Key) {
        self.unseen.lock().remove(service);
    }

    /// The slices of `service`; `None` as long as the view does not show all that was written for it.
    pub fn standing(&self, service: &Key) -> Option<Vec<Arc<EndpointSlice>>> {
        if !self.is_seen(service) {
            return None;
        }
        let mut standing = self.slices.indexed(&of_service(&service.namespace, &service.name));
        standing.retain(|slice| self.is_own(slice) && slice.metadata.deletion_timestamp.is_none());
        Some(standing)
    }

    fn is_own(&self, slice: &EndpointSlice) -> bool {
        label(slice, MANAGED_BY) == Some(self.manager)
    }

    /// Whether the view shows all that was written for `service`.
    fn is_seen(&self, service: &Key) -> bool {
        let mut unseen = self.unseen.lock();
        let Some(written) = unseen.get_mut(service) else { return true };
        let now = Instant::now();
        written.retain(|key, written| match written {
            Written::Present { revision, at } => {
                let shown = self.slices.get(key).and_then(|slice| revision_of(&slice));
                now.duration_since(*at) < SUPERSEDED_AFTER && shown.is_none_or(|shown| shown < *revision)
            }
            Written::Gone { uid, at } => {
                let stands = self.slices.get(key).is_some_and(|slice| slice.metadata.uid == *uid);
                now.duration_since(*at) < SUPERSEDED_AFTER && stands
            }
        });
        let seen = written.is_empty();
        if seen {
            unseen.remove(service);
        }
        seen
    }

    /// Notes what happened to a slice, and enqueues its Service if it is, or was, one of this controller's. One that
    /// was given to another Service, or taken from any, is missing from the Service that had it. Source:
    /// `onEndpointSliceUpdate`.
    pub fn changed(&self, change: &ObjectChange<EndpointSlice>, queue: &WorkQueue<Key>) {
        let is_own = |slice: &Option<Arc<EndpointSlice>>| slice.as_deref().is_some_and(|slice| self.is_own(slice));
        if !is_own(&change.old) && !is_own(&change.new) {
            return;
        }
        let (old, new) = (change.old.as_deref().and_then(service_of), change.new.as_deref().and_then(service_of));
        if let Some(old) = old.filter(|old| new.as_ref() != Some(old)) {
            self.gone(&old, &change.key);
            queue.add(old);
        }
        if let Some(new) = new {
            queue.add(new);
        }
    }

    /// A slice was deleted, or is another Service's: nothing more is expected of it.
    fn gone(&self, service: &Key, slice: &Key) {
        if let Some(written) = self.unseen.lock().get_mut(service) {
            written.remove(slice);
        }
    }

    fn wrote(&self, service: &Key, slice: Key, written: Written) {
        self.unseen.lock().entry(service.clone()).or_default().insert(slice, written);
    }

    /// Carries out `plan`. Deleting the Service or its namespace meanwhile ends it without failure.
    pub async fn carry_out(&self, service: &Key, plan: SlicePlan) -> Result<(), Failure> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &service.namespace);
        for slice in plan.update {
            let name = slice.metadata.name.clone().unwrap_or_default();
            match api.replace(&name, &PostParams::default(), &slice).await {
                Ok(written) => self.wrote_slice(service, &written),
                Err(error) => return Err(Failure::request("update an EndpointSlice")(error)),
            }
        }
        for slice in plan.create {
            match api.create(&PostParams::default(), &slice).await {
                Ok(written) => self.wrote_slice(service, &written),
                Err(error) if is_namespace_terminating(&error) || api_code(&error) == Some(404) => return Ok(()),
                Err(error) => return Err(Failure::request("create an EndpointSlice")(error)),
            }
        }
        for slice in plan.delete {
            self.delete(&api, service, &slice).await?;
        }
        Ok(())
    }

    async fn delete(&self, api: &Api<EndpointSlice>, service: &Key, slice: &Arc<EndpointSlice>) -> Result<(), Failure> {
        let key = Key::of(&**slice);
        let uid = slice.metadata.uid.clone();
        let preconditions = Preconditions { uid: uid.clone(), resource_version: None };
        match api.delete(&key.name, &DeleteParams::default().preconditions(preconditions)).await {
            Ok(_) => self.wrote(service, key, Written::Gone { uid, at: Instant::now() }),
            Err(error) if is_gone_or_taken(&error) => {}
            Err(error) => return Err(Failure::request("delete an EndpointSlice")(error)),
        }
        Ok(())
    }

    fn wrote_slice(&self, service: &Key, slice: &EndpointSlice) {
        if let Some(revision) = revision_of(slice) {
            self.wrote(service, Key::of(slice), Written::Present { revision, at: Instant::now() });
        }
    }
}

/// The Service that a slice says it belongs to.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), label(slice, SERVICE_NAME)?))
}

fn label<'s>(slice: &'s EndpointSlice, name: &str) -> Option<&'s str> {
    slice.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// Revisions of one store are comparable. Source: KEP-5504.
fn revision_of(slice: &EndpointSlice) -> Option<u64> {
    slice.metadata.resource_version.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        controllers::fixtures::{api, list},
        engine::Taken,
        objects::informers::Informers,
    };

    fn slice(name: &str, manager: &str) -> EndpointSlice {
        let labels = json!({SERVICE_NAME: "web", MANAGED_BY: manager});
        let meta = json!({"name": name, "namespace": "shop", "uid": name, "resourceVersion": "7", "labels": labels});
        serde_json::from_value(json!({"metadata": meta, "addressType": "IPv4", "endpoints": []}))
            .expect("a valid slice")
    }

    #[tokio::test]
    async fn a_controller_sees_its_own_slices_once_the_view_shows_what_it_wrote() {
        let slices = Informers::new().endpoint_slices;
        list(&slices, [slice("a", "one"), slice("b", "other")]).await;
        let (writer, service) = (SliceWriter::new("one", api(|_| 200), slices), Key::new("shop", "web"));
        let names = || {
            let standing = writer.standing(&service)?;
            Some(standing.iter().filter_map(|slice| slice.metadata.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(names(), Some(vec!["a".to_owned()]));
        let delete = SlicePlan { delete: vec![Arc::new(slice("a", "one"))], ..Default::default() };
        writer.carry_out(&service, delete).await.expect("it is deleted");
        assert_eq!(names(), None, "the view still shows it");
        let queue = WorkQueue::new("test");
        let gone = |name: &str, manager: &str| {
            let old = Some(Arc::new(slice(name, manager)));
            writer.changed(&ObjectChange { key: Key::new("shop", name), old, new: None }, &queue);
        };
        gone("b", "other");
        assert!(matches!(queue.take(Instant::now()), Taken::Nothing(_)), "another's");
        gone("a", "one");
        assert!(matches!(queue.take(Instant::now()), Taken::Key(key) if key == service));
        assert!(names().is_some(), "nothing more is expected");
    }

    #[tokio::test]
    async fn a_service_whose_slice_is_given_to_another_gets_a_new_one() {
        let writer = SliceWriter::new("one", api(|_| 200), Informers::new().endpoint_slices);
        let of = |service: Option<&str>| {
            let mut slice = slice("a", "one");
            let labels = slice.metadata.labels.get_or_insert_default();
            match service {
                Some(service) => labels.insert(SERVICE_NAME.into(), service.into()),
                None => labels.remove(SERVICE_NAME),
            };
            Some(Arc::new(slice))
        };
        let enqueued = |old: Option<Arc<EndpointSlice>>, new: Option<Arc<EndpointSlice>>| {
            let queue = WorkQueue::new("test");
            writer.changed(&ObjectChange { key: Key::new("shop", "a"), old, new }, &queue);
            let take = || match queue.take(Instant::now()) {
                Taken::Key(key) => Some(key.name),
                _ => None,
            };
            std::iter::from_fn(take).collect::<Vec<_>>()
        };
        assert_eq!(enqueued(of(Some("web")), of(Some("api"))), ["web", "api"]);
        assert_eq!(enqueued(of(Some("web")), of(None)), ["web"]);
        assert_eq!(enqueued(of(None), of(Some("web"))), ["web"]);
        assert_eq!(enqueued(of(Some("web")), of(Some("web"))), ["web"]);
        assert_eq!(enqueued(None, of(Some("web"))), ["web"]);
        // Nothing is expected any more of one that was written and then taken away.
        let service = Key::new("shop", "web");
        writer.wrote_slice(&service, of(Some("web")).as_deref().expect("a slice"));
        assert!(writer.standing(&service).is_none());
        enqueued(of(Some("web")), of(None));
        assert!(writer.standing(&service).is_some());
    }
}
