//! Asks one node's agent, through the API.

use anyhow::bail;
use serde_json::Value;

use crate::cluster::{ApiError, Cluster, object_path};

/// What the agent of `node` says of an object of `kind` (`services`, `pods`) in the current namespace.
pub async fn ask(cluster: &Cluster, node: &str, kind: &str, name: &str) -> anyhow::Result<Value> {
    let nodes = cluster.resources().await?.resolve("nodes")?;
    let path = format!("{}/proxy/inspect/{kind}/{}/{name}", object_path(nodes, "", node), cluster.namespace());
    match cluster.get(&path).await {
        Ok(report) if report.is_object() => Ok(report),
        Ok(other) => bail!("the agent of {node} answered {other}"),
        Err(error) => match error.downcast_ref::<ApiError>() {
            Some(api) if api.is_not_found() => bail!("{}", api.message),
            _ => Err(error),
        },
    }
}
