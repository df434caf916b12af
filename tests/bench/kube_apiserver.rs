//! The real API server as a contestant: etcd and kube-apiserver on free ports of loopback.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::kit::{Result, process::Process, run};

/// A running API server and its store; ends with the value.
pub struct KubeApiServer {
    processes: Vec<Process>,
    pub config: kube::Config,
    dir: PathBuf,
    programs: PathBuf,
    ports: Ports,
    flags: Vec<String>,
}

/// Where its parts listen.
struct Ports {
    api: u16,
    etcd: u16,
    etcd_peers: u16,
}

/// The programs it is made of.
pub const PARTS: [&str; 2] = ["etcd", "kube-apiserver"];
/// How long a first start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why there is no such contestant; `None` where there is one.
pub fn missing(peers: &Path, parts: &[&str]) -> Option<String> {
    let missing: Vec<&str> = parts.iter().copied().filter(|part| !peers.join(part).is_file()).collect();
    (!missing.is_empty()).then(|| format!("no Kubernetes column: {} not in {}", missing.join(", "), peers.display()))
}

impl KubeApiServer {
    /// Starts both, with `flags` for kube-apiserver beside or instead of those that it needs, and waits until it
    /// answers.
    pub async fn start(peers: &Path, dir: &Path, flags: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let key = dir.join("sa.key").display().to_string();
        run(Command::new("openssl").args(["genrsa", "-out", &key, "2048"]))?;
        std::fs::write(dir.join("tokens.csv"), "bench-token,admin,admin,system:masters\n")?;
        let ports = Ports { api: free_port()?, etcd: free_port()?, etcd_peers: free_port()? };
        let mut config = kube::Config::new(format!("https://127.0.0.1:{}", ports.api).parse()?);
        config.accept_invalid_certs = true;
        config.auth_info.token = Some("bench-token".to_owned().into());
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let (dir, programs) = (dir.to_owned(), peers.to_owned());
        let mut server = Self { processes: Vec::new(), config, dir, programs, ports, flags };
        server.start_processes()?;
        server.wait_until_it_answers().await?;
        Ok(server)
    }

    /// Starts the parts anew, over the same data. Does not wait for an answer.
    pub fn start_processes(&mut self) -> Result {
        let shown = |name: &str| self.dir.join(name).display().to_string();
        let mut etcd = Command::new(self.programs.join("etcd"));
        etcd.args(["--data-dir", &shown("etcd"), "--log-level", "error", "--unsafe-no-fsync=false"]);
        // Objects of a large run need more than the 2 GiB that are the default.
        etcd.args(["--quota-backend-bytes=8589934592"]);
        etcd.args([
            &format!("--listen-client-urls=http://127.0.0.1:{}", self.ports.etcd),
            &format!("--advertise-client-urls=http://127.0.0.1:{}", self.ports.etcd),
            &format!("--listen-peer-urls=http://127.0.0.1:{}", self.ports.etcd_peers),
        ]);
        let mut api = Command::new(self.programs.join("kube-apiserver"));
        let own = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
            format!("--secure-port={}", self.ports.api),
            "--bind-address=127.0.0.1".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", shown("sa.key")),
            format!("--service-account-signing-key-file={}", shown("sa.key")),
            format!("--token-auth-file={}", shown("tokens.csv")),
            format!("--cert-dir={}", shown("certs")),
        ];
        // Some flags add to what was said before, where the caller's are meant to stand instead.
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        api.args(own.iter().filter(|flag| !self.flags.iter().any(|other| name(other) == name(flag))));
        api.args(&self.flags);
        for (name, command) in [("etcd", etcd), ("kube-apiserver", api)] {
            self.processes.push(Process::start(name, command, &self.dir)?);
        }
        Ok(())
    }

    /// Ends all parts, the last started first: kube-apiserver waits for an etcd that is gone.
    pub fn stop(&mut self) {
        while self.processes.pop().is_some() {}
    }

    /// The port of the API.
    pub fn port(&self) -> u16 {
        self.ports.api
    }

    /// The running parts.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// What parts that have ended said last; `None` while all run.
    pub fn ended(&mut self) -> Option<String> {
        let mut processes = self.processes.iter_mut();
        processes.find_map(|p| (!p.is_running()).then(|| format!("{} ended:\n{}", p.name, p.tail())))
    }

    async fn wait_until_it_answers(&mut self) -> Result {
        let client = kube::Client::try_from(self.config.clone())?;
        let start = std::time::Instant::now();
        let ready = || async {
            let request = http::Request::get("/readyz").body(Vec::new()).expect("a path of our own");
            client.request_text(request).await
        };
        while let Err(error) = ready().await {
            if let Some(ended) = self.ended() {
                return Err(ended.into());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("kube-apiserver does not answer: {error}").into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

impl Drop for KubeApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port of loopback that nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
