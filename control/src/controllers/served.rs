//! The kinds that the API serves, by discovery: for controllers that work on all of them.

use std::time::Duration;

use kube::{
    Api, Client, Discovery,
    core::{ApiResource, DynamicObject},
    discovery::{ApiCapabilities, Scope, verbs},
};
use tokio_util::sync::CancellationToken;

const RETRY: Duration = Duration::from_secs(1);

/// One kind that can be listed, watched and deleted.
#[derive(Clone, Debug)]
pub struct Served {
    pub resource: ApiResource,
    pub namespaced: bool,
    /// Whether all of a namespace can be deleted in one request.
    pub collection: bool,
}

impl Served {
    pub fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        match self.namespaced {
            true => Api::namespaced_with(client.clone(), namespace, &self.resource),
            false => Api::all_with(client.clone(), &self.resource),
        }
    }
}

/// Asks until the API answers; `None` if it was told to stop first.
pub async fn discover(client: &Client, stop: &CancellationToken) -> Option<Vec<Served>> {
    loop {
        match Discovery::new(client.clone()).run_aggregated().await {
            Ok(discovery) => {
                let kinds = discovery.groups().flat_map(|group| group.recommended_resources());
                return Some(kinds.filter_map(|(resource, capabilities)| read(resource, &capabilities)).collect());
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot discover the served kinds"),
        }
        tokio::select! {
            _ = stop.cancelled() => return None,
            _ = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Events tell of objects and are none themselves; both their groups are views of one store, so one will do.
fn read(resource: ApiResource, capabilities: &ApiCapabilities) -> Option<Served> {
    let needed = [verbs::LIST, verbs::WATCH, verbs::DELETE];
    if resource.group == "events.k8s.io" || !needed.iter().all(|verb| capabilities.supports_operation(verb)) {
        return None;
    }
    Some(Served {
        namespaced: capabilities.scope == Scope::Namespaced,
        collection: capabilities.supports_operation(verbs::DELETE_COLLECTION),
        resource,
    })
}
