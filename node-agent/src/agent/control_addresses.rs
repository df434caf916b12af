//! Where the agent was told that the control service is: by an address, or by a name that has some now. A name that
//! comes to have others later is not followed; those that the control service itself advertises are in the World.

use std::{
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use crate::config::Access;

/// The agent has just reached the control service by this name, or starts without it.
const TIMEOUT: Duration = Duration::from_secs(3);

/// None for an agent with a kubeconfig, which may say more than one server.
pub async fn control_addresses(access: &Access) -> Vec<SocketAddrV4> {
    let Some((host, port)) = endpoint(access) else { return Vec::new() };
    let found = match tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host.as_str(), port))).await {
        Ok(found) => found,
        Err(timeout) => Err(timeout.into()),
    };
    match found {
        Ok(found) => found.filter_map(ipv4).collect(),
        Err(error) => {
            tracing::warn!(%error, host, "Services may take the addresses of this name from the control service");
            Vec::new()
        }
    }
}

fn endpoint(access: &Access) -> Option<(String, u16)> {
    let Access::Join { server, .. } = access else { return None };
    let url: http::Uri = server.parse().ok()?;
    Some((url.host()?.to_owned(), url.port_u16().unwrap_or(443)))
}

fn ipv4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_agent_joins_is_kept_from_services_by_address_and_by_name() {
        let of =
            async |server: &str| control_addresses(&Access::Join { server: server.into(), token: String::new() }).await;
        assert_eq!(of("https://192.0.2.9:6443").await, ["192.0.2.9:6443".parse().unwrap()]);
        assert_eq!(of("https://192.0.2.9").await, ["192.0.2.9:443".parse().unwrap()]);
        assert!(of("https://localhost:6443").await.contains(&"127.0.0.1:6443".parse().unwrap()));
        assert!(control_addresses(&Access::Kubeconfig("a".into())).await.is_empty());
    }
}
