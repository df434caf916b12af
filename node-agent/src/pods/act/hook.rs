//! Lifecycle hooks: what a container asks to be done after its start and before its stop.

use std::{net::Ipv4Addr, time::Duration};

use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};

use crate::pods::{
    Context,
    deadline::seconds,
    probe::{Check, CheckError, Target},
    spec,
};

/// Runs a hook for at most `limit`.
pub async fn run(
    context: &Context,
    pod: &Pod,
    container: &str,
    id: &str,
    hook: &LifecycleHandler,
    pod_ip: Option<Ipv4Addr>,
    limit: Duration,
) -> Result<(), CheckError> {
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(seconds(sleep.seconds).min(limit)).await;
        return Ok(());
    }
    let check = match hook {
        LifecycleHandler { exec: Some(action), .. } => Check::Exec(action),
        LifecycleHandler { http_get: Some(action), .. } => Check::Http(action),
        LifecycleHandler { tcp_socket: Some(action), .. } => Check::Tcp(action),
        _ => return Ok(()),
    };
    let container = spec::container(pod, container).ok_or(CheckError::NoContainer)?;
    let pod_ip = pod_ip.unwrap_or(context.config.node_ip);
    let target = Target { runtime: &*context.runtime, container_id: id, container, pod_ip };
    check.run(&target, limit).await
}
