//! Services by the thousand, each with an EndpointSlice of two endpoints that no one asks.

use std::net::Ipv4Addr;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

use crate::{kit::Result, nft_events::monotonic_ns};

/// An administrator's client.
pub async fn client(kubeconfig: &str) -> Result<Client> {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig)?;
    Ok(Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?)
}

/// Creates the Services numbered `from..to` with their slices.
pub async fn fill(kubeconfig: &str, from: usize, to: usize) -> Result {
    let client = client(kubeconfig).await?;
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
    let slice: EndpointSlice = serde_json::from_value(slice(number, address(number + SECONDS)))?;
    Api::<EndpointSlice>::namespaced(client, "default").create(&PostParams::default(), &slice).await?;
    Ok(())
}

/// Gives the slice of Service `number` another second endpoint; nanoseconds of CLOCK_MONOTONIC at which it was sent,
/// and the revision it got.
pub async fn change(client: &Client, number: usize, second: Ipv4Addr) -> Result<(u64, String)> {
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/filler-{number:05}");
    let body = serde_json::to_vec(&slice(number, second))?;
    let put = http::Request::put(path).header("Content-Type", "application/json").body(body)?;
    let sent_ns = monotonic_ns();
    let stored: serde_json::Value = client.request(put).await?;
    Ok((sent_ns, stored["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()))
}

/// Second endpoints are numbered from here on.
const SECONDS: usize = 30_000;

/// An endpoint of a filler, in 10.245.0.0/16.
pub fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 245, (index / 250 % 250) as u8, (index % 250 + 1) as u8)
}

fn slice(number: usize, second: Ipv4Addr) -> serde_json::Value {
    let name = format!("filler-{number:05}");
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [address(number)], "conditions": {"ready": true}},
            {"addresses": [second], "conditions": {"ready": true}}]})
}
