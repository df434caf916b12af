//! Writes slices, and remembers what it wrote until the view shows it: deciding on an older view would write slices
//! twice.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fairlead_client::Api;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Client,
    api::{DeleteParams, PostParams, Preconditions},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{manager, service_of, slices::SlicePlan};
use crate::engine::{Failure, Informer, Key, ObjectChange, api_code, is_gone_or_taken, is_namespace_terminating};

/// A write that the view has not shown after this long is taken as superseded.
pub const SUPERSEDED_AFTER: Duration = Duration::from_secs(30);

/// What was written for each Service and is not in the view yet.
#[derive(Default)]
pub struct Writes {
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

impl Writes {
    /// Forgets a Service that was deleted.
    pub fn forget(&self, service: &Key) {
        self.unseen.lock().remove(service);
    }

    /// Whether the view shows all that was written for `service`.
    pub fn seen(&self, service: &Key, slices: &Informer<EndpointSlice>) -> bool {
        let mut unseen = self.unseen.lock();
        let Some(written) = unseen.get_mut(service) else { return true };
        let now = Instant::now();
        written.retain(|key, written| match written {
            Written::Present { revision, at } => {
                let shown = slices.get(key).and_then(|slice| revision_of(&slice));
                now.duration_since(*at) < SUPERSEDED_AFTER && shown.is_none_or(|shown| shown < *revision)
            }
            Written::Gone { uid, at } => {
                let stands = slices.get(key).is_some_and(|slice| slice.metadata.uid == *uid);
                now.duration_since(*at) < SUPERSEDED_AFTER && stands
            }
        });
        let seen = written.is_empty();
        if seen {
            unseen.remove(service);
        }
        seen
    }

    /// Notes what happened to a slice. Returns its Service if it is, or was, one of `writer`'s.
    pub fn changed(&self, writer: &str, change: &ObjectChange<EndpointSlice>) -> Option<Key> {
        let slice = change.latest();
        if manager(slice) != Some(writer) && change.old.as_deref().and_then(manager) != Some(writer) {
            return None;
        }
        let service = service_of(slice)?;
        if change.new.is_none() {
            self.gone(&service, &change.key);
        }
        Some(service)
    }

    /// A slice was deleted: nothing more is expected of it.
    fn gone(&self, service: &Key, slice: &Key) {
        if let Some(written) = self.unseen.lock().get_mut(service) {
            written.remove(slice);
        }
    }

    fn wrote(&self, service: &Key, slice: Key, written: Written) {
        self.unseen.lock().entry(service.clone()).or_default().insert(slice, written);
    }

    /// Carries out `plan`. Deleting the Service or its namespace meanwhile ends it without failure.
    pub async fn carry_out(&self, client: &Client, service: &Key, plan: SlicePlan) -> Result<(), Failure> {
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &service.namespace);
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

/// Revisions of one store are comparable. Source: KEP-5504.
fn revision_of(slice: &EndpointSlice) -> Option<u64> {
    slice.metadata.resource_version.as_ref()?.parse().ok()
}
