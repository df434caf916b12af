//! Kubernetes' own control plane as a contestant: the API server with kube-scheduler and kube-controller-manager on
//! loopback.

use std::{path::Path, process::Command};

use crate::{
    kit::{Result, process::Process},
    kube_apiserver::{self, KubeApiServer},
};

/// A running control plane; ends with the value.
pub struct Kubernetes {
    // First field: these end before the API server that they use.
    processes: Vec<Process>,
    api: KubeApiServer,
    pub config: kube::Config,
}

const PARTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager"];

/// Its limits on clients are lifted: what is compared is the work, not the default quota.
pub const WITHOUT_LIMITS: [&str; 3] =
    ["--max-requests-inflight=3000", "--max-mutating-requests-inflight=3000", "--enable-priority-and-fairness=false"];

/// Why there is no such contestant; `None` where there is one.
pub fn missing(peers: &Path) -> Option<String> {
    kube_apiserver::missing(peers, &PARTS)
}

impl Kubernetes {
    pub async fn start(peers: &Path, dir: &Path) -> Result<Self> {
        let mut flags = WITHOUT_LIMITS.to_vec();
        flags.extend(["--service-cluster-ip-range=10.112.0.0/16", "--disable-admission-plugins=ServiceAccount"]);
        let api = KubeApiServer::start(peers, dir, &flags).await?;
        let kubeconfig = dir.join("kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_text(api.port()))?;
        let mut processes = Vec::new();
        for (part, more) in [
            ("kube-scheduler", vec!["--secure-port=0"]),
            (
                "kube-controller-manager",
                vec![
                    "--secure-port=0",
                    "--controllers=deployment-controller,replicaset-controller,node-lifecycle-controller,\
                     garbage-collector-controller",
                    // No kubelet is behind the nodes of the bench.
                    "--node-monitor-grace-period=24h",
                ],
            ),
        ] {
            let mut command = Command::new(peers.join(part));
            command.arg(format!("--kubeconfig={}", kubeconfig.display())).args([
                "--leader-elect=false",
                "--kube-api-qps=5000",
                "--kube-api-burst=5000",
            ]);
            command.args(more);
            processes.push(Process::start(part, command, dir)?);
        }
        let config = api.config.clone();
        Ok(Self { processes, api, config })
    }

    /// What parts that have ended said last; `None` while all run.
    pub fn ended(&mut self) -> Option<String> {
        let mut processes = self.processes.iter_mut();
        let ended = processes.find_map(|p| (!p.is_running()).then(|| format!("{} ended:\n{}", p.name, p.tail())));
        ended.or_else(|| self.api.ended())
    }
}

fn kubeconfig_text(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: bench\n\
         clusters: [{{name: bench, cluster: {{server: \"https://127.0.0.1:{port}\", insecure-skip-tls-verify: \
         true}}}}]\n\
         users: [{{name: bench, user: {{token: bench-token}}}}]\n\
         contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]\n"
    )
}
