//! The control service that is attacked: its users, and what it holds.

use std::{path::Path, sync::Arc, time::Duration};

use kube::client::ConfigExt;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    control_alone::{ControlAlone, expect, issue, wait_for},
    kit::{Result, cluster::PATIENCE},
};

/// What nobody but the administrator may see, as it stands in an answer.
pub const MARK: &str = "bWFya2VkLWFzLXNlY3JldA==";
/// How long others may wait for an answer while the service is attacked: a debug build on a busy machine.
pub const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// The service, a Secret of the administrator's, and a user `joe` who may do little: everything with ConfigMaps of the
/// namespace `own`, and get paths below `/healthz`.
pub struct Victim {
    pub control: ControlAlone,
    pub admin: kube::Client,
}

/// Who attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Stranger,
    Joe,
}

impl Victim {
    pub async fn start(dir: &Path) -> Result<Self> {
        let control = ControlAlone::start(dir).await?;
        let admin = control.admin()?;
        let make = async |uri: &str, object| expect(&admin, 201, "POST", uri, Some(object)).await.map(drop);
        make("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "own"}}))
            .await?;
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "marked"}, "data": {"key": MARK}});
        make("/api/v1/namespaces/default/secrets", secret).await?;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}});
        make("/api/v1/namespaces/own/configmaps", map).await?;
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let role = |kind: &str, rule| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "joe"},
                "rules": [rule]})
        };
        let binding = |kind: &str, role: &str| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "joe"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": "joe"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "joe"}]})
        };
        let paths = json!({"nonResourceURLs": ["/healthz", "/healthz/*"], "verbs": ["get"]});
        make(&format!("{rbac}/clusterroles"), role("ClusterRole", paths)).await?;
        make(&format!("{rbac}/clusterrolebindings"), binding("ClusterRoleBinding", "ClusterRole")).await?;
        let maps = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]});
        make(&format!("{rbac}/namespaces/own/roles"), role("Role", maps)).await?;
        make(&format!("{rbac}/namespaces/own/rolebindings"), binding("RoleBinding", "Role")).await?;
        Ok(Self { control, admin })
    }

    /// A connection after its handshake, with the protocol of ALPN.
    pub async fn connect(&self, who: Who, protocol: &str) -> Result<TlsStream<TcpStream>> {
        self.connector(who, protocol)?.connect().await
    }

    /// What makes such connections.
    pub fn connector(&self, who: Who, protocol: &str) -> Result<Connector> {
        let issued = match who {
            Who::Stranger => None,
            Who::Joe => Some(issue(&self.control.authority()?, "joe", None, std::time::SystemTime::now())?),
        };
        let mut tls = self.control.config_of(issued.as_ref()).rustls_client_config()?;
        tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(Connector { port: self.control.port()?, tls: TlsConnector::from(Arc::new(tls)) })
    }

    fn proc(&self) -> String {
        format!("/proc/{}", self.control.process.pid())
    }

    /// Resident memory in MiB.
    pub fn resident_mib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("{}/status", self.proc()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
    }

    /// Open files, sockets included.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("{}/fd", self.proc()))?.count())
    }

    /// What is open; of a TCP connection its ends and state, as in `/proc/net/tcp`.
    fn open_files(&self) -> Result<Vec<String>> {
        let table = std::fs::read_to_string(format!("{}/net/tcp", self.proc()))?;
        let of_inode = |inode: &str| {
            let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines.find(|fields| fields.get(9) == Some(&inode)).map(|fields| fields[1..4].join(" "))
        };
        let mut open = Vec::new();
        for file in std::fs::read_dir(format!("{}/fd", self.proc()))? {
            // One that is closed meanwhile is not open.
            let Ok(link) = std::fs::read_link(file?.path()) else { continue };
            let link = link.display().to_string();
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            open.push(inode.and_then(of_inode).unwrap_or(link));
        }
        Ok(open)
    }

    /// Runs an attack while the administrator writes and reads: each answer comes in time, and the service never holds
    /// `most_mib` more than before. Afterwards it has no more open than before.
    pub async fn endures(&self, what: &str, most_mib: u64, attack: impl Future<Output = Result>) -> Result {
        let (resident, open) = (self.resident_mib()?, self.descriptors()?);
        // A client of its own: in a hurry it opens more connections than it needs, and keeps them for as long as it
        // lives.
        let beside = self.control.admin()?;
        let mut attack = std::pin::pin!(attack);
        let mut peak = 0;
        loop {
            let served = async {
                let maps = "/api/v1/namespaces/default/configmaps";
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "beside-"}});
                expect(&beside, 201, "POST", maps, Some(map)).await?;
                expect(&beside, 200, "GET", "/api/v1/namespaces", None).await.map(drop)
            };
            let served = async {
                tokio::time::timeout(LONGEST_ANSWER, served)
                    .await
                    .map_err(|_| format!("{what}: nobody else is served"))?
            };
            let ended = tokio::select! {
                ended = attack.as_mut() => Some(ended),
                served = served => {
                    served?;
                    None
                }
            };
            peak = peak.max(self.resident_mib()?.saturating_sub(resident));
            if peak > most_mib {
                return Err(format!("{what}: {peak} MiB more than before").into());
            }
            if let Some(ended) = ended {
                ended.map_err(|error| format!("{what}: {error}"))?;
                break;
            }
        }
        println!("{what}: {peak} MiB more at most");
        drop(beside);
        self.has_no_more_open_than(what, open).await
    }

    /// Waits until what an attack opened is closed.
    async fn has_no_more_open_than(&self, what: &str, before: usize) -> Result {
        let start = std::time::Instant::now();
        loop {
            // A request in each round, so that the administrator's own connection is open in both counts.
            wait_for(&self.admin, "/readyz", "ready", |_| true).await?;
            let now = self.descriptors()?;
            if now <= before.saturating_add(1) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let open = self.open_files()?.join(", ");
                return Err(format!("{what}: {now} files are open, {before} were before: {open}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Makes connections of one sort.
#[derive(Clone)]
pub struct Connector {
    port: u16,
    tls: TlsConnector,
}

impl Connector {
    /// A connection after its handshake.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let connecting = async {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.set_nodelay(true)?;
            let name = rustls::pki_types::ServerName::try_from("127.0.0.1")?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(self.tls.connect(name, stream).await?)
        };
        tokio::time::timeout(PATIENCE, connecting).await?
    }
}
