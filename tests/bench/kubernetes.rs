//! Kubernetes' own control plane as a contestant: etcd, kube-apiserver, kube-scheduler, kube-controller-manager on
//! loopback.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::kit::{Result, process::Process, run};

/// A running control plane; ends with the value.
pub struct Kubernetes {
    processes: Vec<Process>,
    pub config: kube::Config,
}

const PARTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager"];
const API: u16 = 16443;
const ETCD: u16 = 12379;

/// Why there is no such contestant; `None` where there is one.
pub fn missing(peers: &Path) -> Option<String> {
    let missing: Vec<&str> = PARTS.into_iter().filter(|part| !peers.join(part).is_file()).collect();
    (!missing.is_empty()).then(|| format!("no Kubernetes column: {} not in {}", missing.join(", "), peers.display()))
}

impl Kubernetes {
    pub async fn start(peers: &Path, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = |name: &str| -> PathBuf { dir.join(name) };
        let shown = |name: &str| path(name).display().to_string();
        run(Command::new("openssl").args(["genrsa", "-out", &shown("sa.key"), "2048"]))?;
        std::fs::write(path("tokens.csv"), "bench-token,admin,admin,system:masters\n")?;
        let mut processes = Vec::new();
        let mut etcd = Command::new(peers.join("etcd"));
        etcd.args(["--data-dir", &shown("etcd"), "--log-level", "error", "--unsafe-no-fsync=false"]);
        etcd.args([
            &format!("--listen-client-urls=http://127.0.0.1:{ETCD}"),
            &format!("--advertise-client-urls=http://127.0.0.1:{ETCD}"),
        ]);
        etcd.args(["--listen-peer-urls=http://127.0.0.1:12380"]);
        processes.push(Process::start("etcd", etcd, dir)?);
        let mut api = Command::new(peers.join("kube-apiserver"));
        api.args([
            &format!("--etcd-servers=http://127.0.0.1:{ETCD}"),
            &format!("--secure-port={API}"),
            "--bind-address=127.0.0.1",
        ]);
        api.args(["--service-cluster-ip-range=10.112.0.0/16", "--authorization-mode=RBAC", "--allow-privileged=true"]);
        api.args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--disable-admission-plugins=ServiceAccount",
        ]);
        api.arg(format!("--service-account-key-file={}", shown("sa.key")));
        api.arg(format!("--service-account-signing-key-file={}", shown("sa.key")));
        api.arg(format!("--token-auth-file={}", shown("tokens.csv"))).arg(format!("--cert-dir={}", shown("certs")));
        // Its limits on clients are lifted: what is compared is the work, not the default quota.
        api.args([
            "--max-requests-inflight=3000",
            "--max-mutating-requests-inflight=3000",
            "--enable-priority-and-fairness=false",
        ]);
        processes.push(Process::start("kube-apiserver", api, dir)?);
        let mut config = kube::Config::new(format!("https://127.0.0.1:{API}").parse()?);
        config.accept_invalid_certs = true;
        config.auth_info.token = Some("bench-token".to_owned().into());
        let client = kube::Client::try_from(config.clone())?;
        let start = std::time::Instant::now();
        while let Err(error) = client.apiserver_version().await {
            if start.elapsed() > Duration::from_secs(60) {
                return Err(format!("kube-apiserver does not answer: {error}").into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let kubeconfig = path("kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_text())?;
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
        Ok(Self { processes, config })
    }

    /// What parts that have ended said last; `None` while all run.
    pub fn ended(&mut self) -> Option<String> {
        let mut processes = self.processes.iter_mut();
        processes.find_map(|p| (!p.is_running()).then(|| format!("{} ended:\n{}", p.name, p.tail())))
    }
}

impl Drop for Kubernetes {
    /// Last started, first ended: kube-apiserver waits for an etcd that is gone.
    fn drop(&mut self) {
        while self.processes.pop().is_some() {}
    }
}

fn kubeconfig_text() -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: bench\n\
         clusters: [{{name: bench, cluster: {{server: \"https://127.0.0.1:{API}\", insecure-skip-tls-verify: \
         true}}}}]\n\
         users: [{{name: bench, user: {{token: bench-token}}}}]\n\
         contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]\n"
    )
}
