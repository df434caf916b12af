//! What every cluster has from its first start: its namespaces and priority classes, the default roles and bindings,
//! priority levels and APIServices, the Service `kubernetes` with the API behind it, and the Service of the cluster's
//! DNS. Written at each start, and only where something differs.

pub mod flow_control;
mod kept;
mod objects;
pub mod rbac;

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use fairlead_client::{Api, Object};
use fairlead_controllers::controllers::RestoreService;
use futures::FutureExt;
use k8s_openapi::api::{core::v1::Namespace, scheduling::v1::PriorityClass};
use kube::{
    Client, ResourceExt,
    api::{DeleteParams, PostParams},
};
use tokio_util::sync::CancellationToken;

use crate::{Config, engine::api_code};
use objects::MatchesDesired;

/// Where the API can be reached from pods, as the endpoint of `default/kubernetes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Of this host, as nodes reach it.
    pub address: Ipv4Addr,
    /// Of the API's listener.
    pub port: u16,
}

/// Which object could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot make {kind} {name:?}")]
pub struct BootstrapError {
    kind: String,
    name: String,
    /// The API's answer.
    pub source: Box<kube::Error>,
}

impl BootstrapError {
    fn of(kind: &str, name: &str, source: kube::Error) -> Self {
        Self { kind: kind.to_owned(), name: name.to_owned(), source: source.into() }
    }

    /// Whether the API refused it, as it does where the disk is full or a webhook denies it: once the API is served,
    /// that can be mended.
    pub fn is_refusal(&self) -> bool {
        api_code(&self.source).is_some()
    }
}

/// How soon it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Calls [`ensure`] until it has succeeded, and then waits for `stop`. For a start on a full disk, where only reads and
/// deletions can make space, or with a webhook that denies it.
pub async fn ensure_later(client: Client, config: Config, advertised: Option<Advertised>, stop: CancellationToken) {
    let made = async {
        while let Err(error) = ensure(&client, &config, advertised).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "what every cluster has is not complete yet");
            tokio::time::sleep(RETRY).await;
        }
        tracing::info!("the objects that every cluster has are there now");
    };
    if stop.run_until_cancelled(made).await.is_some() {
        stop.cancelled().await;
    }
}

/// Makes what is missing and repairs what differs.
pub async fn ensure(client: &Client, config: &Config, advertised: Option<Advertised>) -> Result<(), BootstrapError> {
    for namespace in objects::namespaces() {
        ensure_one(&Api::<Namespace>::all(client.clone()), namespace).await?;
    }
    for class in objects::priority_classes() {
        ensure_one(&Api::<PriorityClass>::all(client.clone()), class).await?;
    }
    kept::ensure(client, config).await?;
    KubernetesService::new(config, advertised).restore(client).await?;
    ensure_one(&Api::namespaced(client.clone(), "kube-system"), objects::dns_service(config)).await
}

/// The Service `kubernetes` with its Endpoints and EndpointSlice, as they must be.
#[derive(Clone, Debug)]
pub struct KubernetesService {
    config: Config,
    advertised: Option<Advertised>,
}

impl KubernetesService {
    /// That of a control service; without endpoints where it has no address to advertise.
    pub fn new(config: &Config, advertised: Option<Advertised>) -> Self {
        Self { config: config.clone(), advertised }
    }

    /// What restores it whenever it is called.
    pub fn restoring(self, client: Client) -> RestoreService {
        Arc::new(move || {
            let (service, client) = (self.clone(), client.clone());
            async move { service.restore(&client).await.map_err(|error| error.source) }.boxed()
        })
    }

    /// Makes what is missing and repairs what differs.
    pub async fn restore(&self, client: &Client) -> Result<(), BootstrapError> {
        let service = objects::kubernetes_service(&self.config, self.advertised);
        ensure_one(&Api::namespaced(client.clone(), "default"), service).await?;
        if let Some(advertised) = self.advertised {
            ensure_one(&Api::namespaced(client.clone(), "default"), objects::kubernetes_endpoints(advertised)).await?;
            ensure_one(&Api::namespaced(client.clone(), "default"), objects::kubernetes_slice(advertised)).await?;
        }
        Ok(())
    }
}

async fn ensure_one<K: Object + MatchesDesired>(api: &Api<K>, wanted: K) -> Result<(), BootstrapError> {
    let name = wanted.name_any();
    write(api, &name, wanted).await.map_err(|source| BootstrapError {
        kind: K::kind(&()).into_owned(),
        name,
        source: Box::new(source),
    })
}

async fn write<K: Object + MatchesDesired>(api: &Api<K>, name: &str, wanted: K) -> Result<(), kube::Error> {
    match api.get_opt(name).await? {
        Some(found) if found.is_as(&wanted) => Ok(()),
        Some(found) if found.can_become(&wanted) => {
            let mut wanted = wanted;
            wanted.meta_mut().resource_version = found.resource_version();
            api.replace(name, &PostParams::default(), &wanted).await.map(|_| ())
        }
        Some(_) => {
            api.delete(name, &DeleteParams::default()).await?;
            api.create(&PostParams::default(), &wanted).await.map(|_| ())
        }
        None => api.create(&PostParams::default(), &wanted).await.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
    use kube::api::ListParams;

    use super::*;
    use crate::{
        allocation::Allocator,
        api::{Api as KubernetesApi, open_store},
        auth::Identity,
        kinds::Registry,
    };

    pub fn client(dir: &std::path::Path, config: &Config) -> Client {
        let kinds = Registry::default();
        let store = open_store(&dir.join("store"), &kinds).unwrap();
        let allocator = Allocator::new(config.service_cidr, config.service_node_port_range.clone());
        KubernetesApi::new(Arc::new(store), kinds, allocator, "192.0.2.1:6443").client(Identity::control("test"))
    }

    async fn revision<K: Object>(api: &Api<K>, name: &str) -> String {
        api.get(name).await.unwrap().resource_version().unwrap()
    }

    #[tokio::test]
    async fn a_second_start_writes_nothing_and_another_address_only_the_endpoints() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path());
        let client = client(dir.path(), &config);
        let at = Advertised { address: [192, 0, 2, 1].into(), port: 6443 };
        ensure(&client, &config, Some(at)).await.unwrap();
        let services: Api<Service> = Api::namespaced(client.clone(), "default");
        let dns: Api<Service> = Api::namespaced(client.clone(), "kube-system");
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
        let before = (revision(&services, "kubernetes").await, revision(&slices, "kubernetes").await);
        let all: kube::Api<EndpointSlice> = kube::Api::all(client.clone());
        let list = || async { all.list(&ListParams::default()).await.unwrap().metadata.resource_version };
        let written = list().await;
        ensure(&client, &config, Some(at)).await.unwrap();
        assert_eq!(list().await, written, "of the default roles and the like nothing was written again");
        assert_eq!((revision(&services, "kubernetes").await, revision(&slices, "kubernetes").await), before);

        let classes: Api<PriorityClass> = Api::all(client.clone());
        assert_eq!(classes.get("system-node-critical").await.unwrap().value, 2_000_001_000);

        ensure(&client, &config, Some(Advertised { address: [192, 0, 2, 2].into(), ..at })).await.unwrap();
        assert_eq!(revision(&services, "kubernetes").await, before.0);
        assert_eq!(slices.get("kubernetes").await.unwrap().endpoints[0].addresses, ["192.0.2.2"]);

        config.cluster_dns = [10, 96, 0, 53].into();
        ensure(&client, &config, Some(at)).await.unwrap();
        let address = dns.get("kube-dns").await.unwrap().spec.unwrap().cluster_ip;
        assert_eq!(address.as_deref(), Some("10.96.0.53"), "a ClusterIP does not change, so the Service is made anew");
    }

    #[tokio::test]
    async fn what_somebody_deleted_is_restored_and_nothing_else_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path());
        let client = client(dir.path(), &config);
        let at = Some(Advertised { address: [192, 0, 2, 1].into(), port: 6443 });
        ensure(&client, &config, at).await.unwrap();
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
        let services: Api<Service> = Api::namespaced(client.clone(), "default");
        let (slice, service) = (revision(&slices, "kubernetes").await, revision(&services, "kubernetes").await);
        slices.delete("kubernetes", &DeleteParams::default()).await.unwrap();
        KubernetesService::new(&config, at).restore(&client).await.unwrap();
        assert_ne!(revision(&slices, "kubernetes").await, slice);
        assert_eq!(revision(&services, "kubernetes").await, service);
    }
}
