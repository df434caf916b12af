//! Asks one node's agent, through the API.

use anyhow::bail;
use serde_json::Value;

use crate::cluster::{ApiError, Cluster, check_name, object_path, segment};

/// What the agent of `node` says of an object of `kind` (`services`, `pods`) in the current namespace.
pub async fn ask(cluster: &Cluster, node: &str, kind: &str, name: &str) -> anyhow::Result<Value> {
    let nodes = cluster.resources().await?.resolve("nodes")?;
    check_name(name)?;
    let agent = object_path(nodes, "", node)?;
    let path = format!("{agent}/proxy/inspect/{kind}/{}/{}", segment(cluster.namespace()), segment(name));
    match cluster.get(&path).await {
        Ok(report) if report.is_object() => Ok(report),
        Ok(other) => bail!("the agent of {node} answered {other}"),
        Err(error) => match error.downcast_ref::<ApiError>() {
            Some(api) if api.is_not_found() => bail!("{}", api.message),
            _ => Err(error),
        },
    }
}
