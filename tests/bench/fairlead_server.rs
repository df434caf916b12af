//! fairlead's control service as a contestant, on a free port of loopback.

use std::{path::Path, path::PathBuf, process::Command, time::Duration};

use fairlead_control::auth::pki::Authority;

use crate::{
    kit::{Result, cluster::FAIRLEAD, process::Process, wait},
    kube_apiserver::free_port,
};

/// A running control service; ends with the value.
pub struct FairleadServer {
    /// `None` while it is stopped.
    pub process: Option<Process>,
    pub config: kube::Config,
    dir: PathBuf,
    port: u16,
    flags: Vec<String>,
}

impl FairleadServer {
    /// Starts it with `flags` beside those that it needs, and waits until it listens.
    pub async fn start(dir: &Path, flags: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (port, kubeconfig) = (free_port()?, dir.join("fairlead/admin.kubeconfig"));
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let config = kube::Config::new("https://127.0.0.1".parse()?);
        let mut server = Self { process: None, config, dir: dir.to_owned(), port, flags };
        server.start_process()?;
        wait::until("the control service", Duration::from_secs(60), || {
            std::net::TcpStream::connect(("127.0.0.1", port))
                .map_err(Into::into)
                .and(std::fs::metadata(&kubeconfig).map_err(Into::into))
                .map(|_| ())
        })?;
        let kubeconfig = kube::config::Kubeconfig::read_from(&kubeconfig)?;
        server.config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        Ok(server)
    }

    /// Starts the process anew, over the same data. Does not wait for an answer.
    pub fn start_process(&mut self) -> Result {
        let mut command = Command::new(FAIRLEAD);
        command.args(["server", "--bind", &format!("127.0.0.1:{}", self.port), "--data-dir"]);
        command.arg(self.dir.join("fairlead")).args(&self.flags);
        command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()));
        self.process = Some(Process::start("fairlead", command, &self.dir)?);
        Ok(())
    }

    /// The cluster's own authority.
    pub fn authority(&self) -> Result<Authority> {
        let read = |name: &str| std::fs::read_to_string(self.dir.join("fairlead/pki").join(name));
        Ok(Authority::load(&read("ca.crt")?, &read("ca.key")?)?)
    }

    /// What it said last, if it has ended.
    pub fn ended(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        (!process.is_running()).then(|| format!("{} ended:\n{}", process.name, process.tail()))
    }
}
