//! The tasks of a control service beside its answers, its controllers and its scheduler.

use std::sync::Arc;

use futures::FutureExt;

use super::{certificates::Certificates, checks, housekeeping};
use crate::{
    admission::quota,
    allocation::{self, Allocator},
    api::Api as KubernetesApi,
    auth::Identity,
    bootstrap, definitions,
    file_follower::FileFollower,
    flow_control::{self, FlowControl},
    store::Store,
    supervise::Supervisor,
    webhook,
};

/// Starts what the service does beside answering.
pub fn start(
    supervisor: &Supervisor,
    api: &KubernetesApi,
    store: &Arc<dyn Store>,
    certificates: Certificates,
    allocator: Allocator,
    network: Arc<dyn webhook::Dial>,
) {
    let certificates = Arc::new(certificates);
    supervisor.spawn("certificate-renewal", move |stop| certificates.clone().renew_repeatedly(stop).boxed());
    let audited = store.clone();
    supervisor.spawn("allocation-audit", move |stop| {
        allocation::audit_repeatedly(audited.clone(), allocator.clone(), stop).boxed()
    });
    let (registry, client) = (api.kinds().clone(), api.client(Identity::control("apiserver")));
    let definitions = store.clone();
    supervisor.spawn("custom-resource-definitions", move |stop| {
        let (store, registry, client) = (definitions.clone(), registry.clone(), client.clone());
        definitions::controller::run(store, registry, client, network.clone(), stop).boxed()
    });
    let (quotas, counted_kinds) = (store.clone(), api.kinds().clone());
    supervisor.spawn("resource-quota", move |stop| quota::run(quotas.clone(), counted_kinds.clone(), stop).boxed());
    let trimmed = store.clone();
    supervisor.spawn("housekeeping", move |stop| housekeeping::run(trimmed.clone(), stop).boxed());
    let (used, secrets) = (api.authorizer().facts().used_secrets().clone(), store.clone());
    let client = api.client(Identity::control("apiserver"));
    supervisor.spawn("secret-token-use", move |stop| used.clone().run(secrets.clone(), client.clone(), stop).boxed());
    let health = api.health().clone();
    supervisor.spawn("heartbeat", move |stop| checks::beat(health.clone(), stop).boxed());
}

/// Starts what keeps priority and fairness, and its default objects, as the objects say.
pub fn start_flow_control(supervisor: &Supervisor, api: &KubernetesApi, store: &Arc<dyn Store>, control: FlowControl) {
    let followed = store.clone();
    supervisor.spawn("priority-and-fairness", move |stop| {
        flow_control::controller::run(control.clone(), followed.clone(), stop).boxed()
    });
    let (client, schemas) = (api.client(Identity::control("apiserver")), store.clone());
    supervisor.spawn("flow-schema-conditions", move |stop| {
        flow_control::controller::write_conditions(schemas.clone(), client.clone(), stop).boxed()
    });
    let client = api.client(Identity::control("apiserver"));
    supervisor.spawn("flow-control-defaults", move |stop| bootstrap::flow_control::keep(client.clone(), stop).boxed());
}

/// Follows a file for as long as the service runs.
pub fn follow(supervisor: &Supervisor, api: &KubernetesApi, name: &'static str, follower: FileFollower) {
    let follower = Arc::new(follower);
    let told = follower.clone();
    api.metrics().add(move |scrape| told.tell(scrape));
    supervisor.spawn(name, move |stop| {
        let follower = follower.clone();
        async move { follower.run(stop).await }.boxed()
    });
}
