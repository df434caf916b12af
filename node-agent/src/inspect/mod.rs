//! What this node can tell about its datapath: for each Service and host port the frontends, the backends that the
//! kernel holds, the endpoints left out and why, the counters, and the names with what they lead to.
//!
//! It reads the table that the kernel was written from *and* the kernel's maps, and says where they differ; names it
//! reads from the zone that queries are answered from. It changes nothing.

mod names;
mod report;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    dns::{Names, ServiceNames},
    proxy::{
        Proxy,
        table::{ServiceTable, TableService},
    },
    world::ObjectName,
};

/// `GET /inspect/services/{namespace}/{name}`, `GET /inspect/pods/{namespace}/{name}` (the pod's host ports) and `GET
/// /inspect/datapath`, as JSON; `GET /inspect/applied/{revision}` answers, with the
/// revision that is applied by then, once the kernel serves `revision`.
pub fn router(proxy: &Proxy, names: &Names, node_name: &str) -> Router {
    let node = Node { proxy: proxy.clone(), names: names.clone(), name: node_name.into() };
    Router::new()
        .route("/inspect/services/{namespace}/{name}", get(service))
        .route("/inspect/pods/{namespace}/{name}", get(pod))
        .route("/inspect/datapath", get(datapath))
        .route("/inspect/applied/{revision}", get(applied))
        .with_state(node)
}

#[derive(Clone)]
struct Node {
    proxy: Proxy,
    names: Names,
    name: String,
}

/// How long a caller may wait for a revision.
const APPLIED_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

async fn applied(State(node): State<Node>, Path(revision): Path<u64>) -> Response {
    let mut applied = node.proxy.applied();
    let reached = applied.wait_for(|now| *now >= revision);
    match tokio::time::timeout(APPLIED_WITHIN, reached).await {
        Ok(Ok(now)) => format!("{}\n", *now).into_response(),
        Ok(Err(_)) => (StatusCode::SERVICE_UNAVAILABLE, "the datapath has ended\n").into_response(),
        Err(_) => {
            let now = *node.proxy.applied().borrow();
            (StatusCode::GATEWAY_TIMEOUT, format!("revision {now} is applied, {revision} is not\n")).into_response()
        }
    }
}

async fn service(State(node): State<Node>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let name = ObjectName::new(namespace, name);
    let table = node.proxy.table();
    let Some(service) = table.service(&name).cloned() else {
        let message = format!("node {} knows no Service {name} at revision {}", node.name, table.revision);
        return (StatusCode::NOT_FOUND, message).into_response();
    };
    entry(&node, &table, &service, node.names.of(&name)).await
}

async fn pod(State(node): State<Node>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let name = ObjectName::new(namespace, name);
    let table = node.proxy.table();
    match table.pod(&name).cloned() {
        Some(pod) => entry(&node, &table, &pod, None).await,
        None => {
            let message = format!("node {} serves no host port of a pod {name}", node.name);
            (StatusCode::NOT_FOUND, message).into_response()
        }
    }
}

async fn entry(node: &Node, table: &ServiceTable, entry: &TableService, names: Option<ServiceNames>) -> Response {
    let keys = entry.frontends.iter().map(crate::proxy::image::key_of).collect();
    match node.proxy.held(keys).await {
        Ok(held) => Json(report::entry(&node.name, entry, &held, names.as_ref(), &report::status(&node.proxy, table)))
            .into_response(),
        Err(error) => failed(error),
    }
}

async fn datapath(State(node): State<Node>) -> Response {
    let table = node.proxy.table();
    match node.proxy.usage().await {
        Ok(usage) => {
            Json(report::datapath(&node.name, &table, &usage, &report::status(&node.proxy, &table))).into_response()
        }
        Err(error) => failed(error),
    }
}

fn failed(error: crate::proxy::ProxyError) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, crate::error_chain(&error)).into_response()
}
