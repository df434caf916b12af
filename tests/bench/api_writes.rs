//! Writes and reads that the API bench asks of a server: creates, updates and applies of pods.

use std::{ops::Range, time::Instant};

use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::{api_load, kit::Result};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Bytes of the answer to a GET, read to its end and not kept: what a client does with them is its own work.
pub async fn get(client: &Client, path: &str, accept: &str) -> Result<usize> {
    let request = http::Request::get(path).header("Accept", accept).body(Body::empty())?;
    let (head, mut body) = client.send(request).await?.into_parts();
    if !head.status.is_success() {
        let bytes = body.collect().await?.to_bytes();
        return Err(format!("GET {path}: {} {}", head.status, String::from_utf8_lossy(&bytes)).into());
    }
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, |data| data.len());
    }
    Ok(length)
}

/// The name of pod `index` of a set.
pub fn pod_name(set: &str, index: usize) -> String {
    format!("{set}-{index:06}")
}

fn pod(set: &str, index: usize) -> Value {
    let mut pod = api_load::pod(&pod_name(set, index));
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["labels"]["hundredth"] = json!((index % 100).to_string());
    pod
}

/// Makes the service account that pods have unless they name another, where no controller has made it yet.
pub async fn default_service_account(client: &Client) -> Result {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let path = "/api/v1/namespaces/default/serviceaccounts/default?fieldManager=bench";
    write(client, "PATCH", path, "application/apply-patch+yaml", &account).await.map(drop)
}

/// Creates per second, by as many writers as there are clients.
pub async fn create_pods(clients: &[Client], set: &'static str, indexes: Range<usize>) -> Result<f64> {
    let (count, first) = (indexes.len(), indexes.start);
    let start = Instant::now();
    api_load::each(clients, count, |client, index| async move {
        write(&client, "POST", PODS, "application/json", &pod(set, first + index)).await.map(drop)
    })
    .await?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Updates per second of one pod by one writer, each of which changes it.
pub async fn update(client: &Client, count: usize) -> Result<f64> {
    let created = write(client, "POST", PODS, "application/json", &pod("updated", 0)).await?;
    let path = format!("{PODS}/{}", pod_name("updated", 0));
    let mut object: Value = serde_json::from_slice(&created)?;
    let start = Instant::now();
    for index in 0..count {
        object["metadata"]["labels"]["turn"] = json!(index.to_string());
        object = serde_json::from_slice(&write(client, "PUT", &path, "application/json", &object).await?)?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Server-side applies per second of one pod by one writer, each of which changes it.
pub async fn apply(client: &Client, count: usize) -> Result<f64> {
    let path = format!("{PODS}/{}?fieldManager=bench", pod_name("applied", 0));
    let mut object = pod("applied", 0);
    let start = Instant::now();
    for index in 0..count {
        object["metadata"]["labels"]["turn"] = json!(index.to_string());
        write(client, "PATCH", &path, "application/apply-patch+yaml", &object).await?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Sends an object and answers with the body of the answer.
pub async fn write(
    client: &Client,
    method: &str,
    path: &str,
    content_type: &str,
    object: &Value,
) -> Result<bytes::Bytes> {
    let request = http::Request::builder().method(method).uri(path).header("Content-Type", content_type);
    let (head, body) = client.send(request.body(Body::from(object.to_string().into_bytes()))?).await?.into_parts();
    let bytes = body.collect().await?.to_bytes();
    if !head.status.is_success() {
        return Err(format!("{method} {path}: {} {}", head.status, String::from_utf8_lossy(&bytes)).into());
    }
    Ok(bytes)
}
