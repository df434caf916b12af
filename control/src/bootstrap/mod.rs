//! What every cluster has from its first start: its namespaces, the default roles and bindings, priority levels and
//! APIServices, the Service `kubernetes` with the API behind it, and the Service of the cluster's DNS. Written at each
//! start, and only where something differs.

mod kept;
mod objects;
pub mod rbac;

use std::{fmt::Debug, net::Ipv4Addr, time::Duration};

use futures::{StreamExt, stream::select_all};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Endpoints, Namespace, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use crate::Config;
use objects::MatchesDesired;

/// Where the API can be reached from pods, as the endpoint of `default/kubernetes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub address: Ipv4Addr,
    pub port: u16,
}

/// Which object could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot make {kind} {name:?}")]
pub struct BootstrapError {
    kind: String,
    name: String,
    source: Box<kube::Error>,
}

/// Makes what is missing and repairs what differs.
pub async fn ensure(client: &Client, config: &Config, advertised: Option<Advertised>) -> Result<(), BootstrapError> {
    for namespace in objects::namespaces() {
        ensure_one(&Api::<Namespace>::all(client.clone()), namespace).await?;
    }
    kept::ensure(client, config).await?;
    ensure_kubernetes(client, config, advertised).await?;
    ensure_one(&Api::namespaced(client.clone(), "kube-system"), objects::dns_service(config)).await
}

/// Keeps the Service `kubernetes` and its endpoints as they must be, whoever changes them, until `stop`.
pub async fn keep(client: Client, config: Config, advertised: Option<Advertised>, stop: CancellationToken) {
    let events = select_all([
        changes::<Service>(&client).boxed(),
        changes::<Endpoints>(&client).boxed(),
        changes::<EndpointSlice>(&client).boxed(),
    ]);
    let mut events = std::pin::pin!(events);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => if event.is_none() { return },
        }
        while let Err(e) = ensure_kubernetes(&client, &config, advertised).await {
            tracing::warn!(error = &e as &dyn std::error::Error, "cannot keep the Service default/kubernetes");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
            }
        }
    }
}

fn changes<K>(client: &Client) -> impl futures::Stream<Item = ()> + Send + use<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let only = watcher::Config::default().fields("metadata.name=kubernetes");
    watcher(Api::<K>::namespaced(client.clone(), "default"), only).default_backoff().map(|_| ())
}

async fn ensure_kubernetes(
    client: &Client,
    config: &Config,
    advertised: Option<Advertised>,
) -> Result<(), BootstrapError> {
    ensure_one(&Api::namespaced(client.clone(), "default"), objects::kubernetes_service(config, advertised)).await?;
    if let Some(advertised) = advertised {
        ensure_one(&Api::namespaced(client.clone(), "default"), objects::kubernetes_endpoints(advertised)).await?;
        ensure_one(&Api::namespaced(client.clone(), "default"), objects::kubernetes_slice(advertised)).await?;
    }
    Ok(())
}

async fn ensure_one<K>(api: &Api<K>, wanted: K) -> Result<(), BootstrapError>
where
    K: Resource<DynamicType = ()> + MatchesDesired + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = wanted.name_any();
    write(api, &name, wanted).await.map_err(|source| BootstrapError {
        kind: K::kind(&()).into_owned(),
        name,
        source: Box::new(source),
    })
}

async fn write<K>(api: &Api<K>, name: &str, wanted: K) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + MatchesDesired + Clone + Debug + Serialize + DeserializeOwned,
{
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

    use kube::api::ListParams;

    use super::*;
    use crate::{
        allocation::Allocator,
        api::{Api as KubernetesApi, open_store},
        auth::Identity,
        kinds::Registry,
    };

    fn client(dir: &std::path::Path, config: &Config) -> Client {
        let kinds = Registry::default();
        let store = open_store(&dir.join("store"), &kinds).unwrap();
        let allocator = Allocator::new(config.service_cidr, config.service_node_port_range.clone());
        KubernetesApi::new(Arc::new(store), kinds, allocator, "192.0.2.1:6443").client(Identity::control("test"))
    }

    async fn revision<K>(api: &Api<K>, name: &str) -> String
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
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
        let list = || async { slices.list(&ListParams::default()).await.unwrap().metadata.resource_version };
        let written = list().await;
        ensure(&client, &config, Some(at)).await.unwrap();
        assert_eq!(list().await, written, "of the default roles and the like nothing was written again");
        assert_eq!((revision(&services, "kubernetes").await, revision(&slices, "kubernetes").await), before);

        ensure(&client, &config, Some(Advertised { address: [192, 0, 2, 2].into(), ..at })).await.unwrap();
        assert_eq!(revision(&services, "kubernetes").await, before.0);
        assert_eq!(slices.get("kubernetes").await.unwrap().endpoints[0].addresses, ["192.0.2.2"]);

        config.cluster_dns = [10, 96, 0, 53].into();
        ensure(&client, &config, Some(at)).await.unwrap();
        let address = dns.get("kube-dns").await.unwrap().spec.unwrap().cluster_ip;
        assert_eq!(address.as_deref(), Some("10.96.0.53"), "a ClusterIP does not change, so the Service is made anew");
    }

    #[tokio::test]
    async fn the_service_of_the_api_comes_back_when_somebody_deletes_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path());
        let client = client(dir.path(), &config);
        let at = Some(Advertised { address: [192, 0, 2, 1].into(), port: 6443 });
        ensure(&client, &config, at).await.unwrap();
        let stop = CancellationToken::new();
        let keeper = tokio::spawn(keep(client.clone(), config, at, stop.clone()));
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
        let services: Api<Service> = Api::namespaced(client, "default");
        let (slice, service) = (revision(&slices, "kubernetes").await, revision(&services, "kubernetes").await);
        slices.delete("kubernetes", &DeleteParams::default()).await.unwrap();
        services.delete("kubernetes", &DeleteParams::default()).await.unwrap();
        let is_back = async {
            let newer = |found: Option<String>, old: &String| found.is_some_and(|new| new != *old);
            loop {
                let back =
                    newer(slices.get_opt("kubernetes").await.unwrap().and_then(|s| s.resource_version()), &slice)
                        && newer(
                            services.get_opt("kubernetes").await.unwrap().and_then(|s| s.resource_version()),
                            &service,
                        );
                if back {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), is_back).await.unwrap();
        stop.cancel();
        keeper.await.unwrap();
    }
}
