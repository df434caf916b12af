//! Services by the thousand, each with an EndpointSlice of two endpoints that no one asks.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

use crate::kit::Result;

/// Creates the Services numbered `from..to` with their slices.
pub async fn fill(kubeconfig: &str, from: usize, to: usize) -> Result {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    let client = Client::try_from(config)?;
    stream::iter(from..to)
        .map(|number| create(client.clone(), number))
        .buffer_unordered(32)
        .try_collect::<Vec<()>>()
        .await
        .map(|_| ())
}

async fn create(client: Client, number: usize) -> Result {
    let name = format!("filler-{number:05}");
    let service: Service =
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}))?;
    Api::<Service>::namespaced(client.clone(), "default").create(&PostParams::default(), &service).await?;
    let slice: EndpointSlice = serde_json::from_value(slice(number, 0))?;
    Api::<EndpointSlice>::namespaced(client, "default").create(&PostParams::default(), &slice).await?;
    Ok(())
}

/// The slice of Service `number`; `turn` changes its second endpoint.
pub fn slice(number: usize, turn: usize) -> serde_json::Value {
    let name = format!("filler-{number:05}");
    let address = |index: usize| format!("10.245.{}.{}", index / 250 % 250, index % 250 + 1);
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [address(number)], "conditions": {"ready": true}},
            {"addresses": [address(number + 30_000 + turn)], "conditions": {"ready": true}}]})
}
