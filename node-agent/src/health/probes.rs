//! Asks the container runtime and the node's own DNS server whether they answer, and remembers what they said.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use tokio::{net::UdpSocket, sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{dns, runtime::Runtime};

/// What was found last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeResults {
    /// Why pods cannot be run now.
    pub runtime: Option<String>,
    /// Why names are not answered now.
    pub dns: Option<String>,
}

/// Between two probes.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// A loaded runtime is slow rather than broken.
const RUNTIME_ANSWERS_WITHIN: Duration = Duration::from_secs(10);
const DNS_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Probes until `stop`, and publishes changes.
pub async fn run(
    runtime: Arc<dyn Runtime>,
    dns_server: SocketAddrV4,
    cluster_domain: String,
    results: watch::Sender<ProbeResults>,
    stop: CancellationToken,
) {
    let mut history = History::default();
    loop {
        let probe = async { tokio::join!(runtime_failure(&*runtime), dns_failure(dns_server, &cluster_domain)) };
        let (runtime, dns) = tokio::select! {
            () = stop.cancelled() => return,
            found = probe => found,
        };
        let found = history.add(ProbeResults { runtime, dns });
        results.send_if_modified(|held| {
            let differs = *held != found;
            *held = found;
            differs
        });
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PROBE_EVERY) => {}
        }
    }
}

/// A failure counts once it is found twice running: a runtime that is being restarted does not make the node NotReady.
#[derive(Debug, Default)]
struct History {
    last: ProbeResults,
}

impl History {
    fn add(&mut self, found: ProbeResults) -> ProbeResults {
        let last = std::mem::replace(&mut self.last, found.clone());
        ProbeResults { runtime: last.runtime.and(found.runtime), dns: last.dns.and(found.dns) }
    }
}

async fn runtime_failure(runtime: &dyn Runtime) -> Option<String> {
    match timeout(RUNTIME_ANSWERS_WITHIN, runtime.ping()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.chain()),
        Err(_) => Some(format!("the container runtime does not answer within {RUNTIME_ANSWERS_WITHIN:?}")),
    }
}

async fn dns_failure(server: SocketAddrV4, cluster_domain: &str) -> Option<String> {
    match timeout(DNS_ANSWERS_WITHIN, ask_for_apex(server, cluster_domain)).await {
        Ok(Ok(0)) => None,
        Ok(Ok(code)) => Some(format!("{server} answers {cluster_domain} with response code {code}")),
        Ok(Err(error)) => Some(format!("cannot ask {server}: {error}")),
        Err(_) => Some(format!("{server} does not answer within {DNS_ANSWERS_WITHIN:?}")),
    }
}

/// Asks for the zone's SOA, which is there as soon as the zone is. Returns the response code (RFC 1035, section 4.1.1).
async fn ask_for_apex(server: SocketAddrV4, cluster_domain: &str) -> std::io::Result<u8> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    let id: u16 = rand::random();
    let query = dns::soa_query(id, cluster_domain).ok_or(std::io::ErrorKind::InvalidInput)?;
    socket.send(&query).await?;
    let mut response = [0; 512];
    loop {
        let length = socket.recv(&mut response).await?;
        if length >= 12 && response[..2] == id.to_be_bytes() {
            return Ok(response[3] & 0x0f);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(what: &str) -> ProbeResults {
        ProbeResults { runtime: Some(what.into()), dns: None }
    }

    #[test]
    fn a_failure_counts_once_it_is_found_twice_running() {
        let mut history = History::default();
        assert_eq!(history.add(failing("refused")), ProbeResults::default());
        assert_eq!(history.add(ProbeResults::default()), ProbeResults::default());
        assert_eq!(history.add(failing("refused")), ProbeResults::default());
        assert_eq!(history.add(failing("timed out")), failing("timed out"));
        assert_eq!(history.add(ProbeResults::default()), ProbeResults::default());
    }

    #[tokio::test]
    async fn a_dns_server_that_does_not_know_its_zone_fails_the_check() {
        let config = dns::DnsConfig {
            listen: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/nonexistent".into(),
            node_name: "a".into(),
        };
        let (publish, world) = watch::channel(Arc::new(crate::world::World::default()));
        let server = dns::start(config, world).await.unwrap();
        let failure = dns_failure(server.address(), "cluster.local").await;
        assert!(failure.as_deref().is_some_and(|text| text.ends_with("response code 2")), "{failure:?}");
        publish.send_replace(Arc::new(crate::world::World { synced: true, revision: 1, ..Default::default() }));
        while server.revision() != 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(dns_failure(server.address(), "cluster.local").await, None);
        let address = server.address();
        server.shutdown().await;
        assert!(dns_failure(address, "cluster.local").await.is_some());
    }
}
