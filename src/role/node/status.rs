//! `fairlead node status`: whether this host's node runs, and what it lacks.

use super::{UNIT_NAME, systemd, unit::UNIT_PATH};
use crate::role::privileges;

/// Say whether this host's node runs, and what it lacks
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead node status")]
pub struct NodeStatus {
    /// Docker Engine that runs the containers
    #[arg(long, value_name = "URL", env = "DOCKER_HOST", default_value = "unix:///var/run/docker.sock")]
    docker_host: String,
    /// Port of the agent's HTTPS server
    #[arg(long, value_name = "PORT", default_value = "10250")]
    port: u16,
}

impl NodeStatus {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        println!("service   {}", service());
        let listening = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok();
        println!(
            "agent     {}",
            if listening {
                format!("listens on port {}", self.port)
            } else {
                format!("nothing listens on port {}", self.port)
            }
        );
        match privileges::require_docker(&self.docker_host) {
            Ok(()) => println!("docker    answers on {}", self.docker_host),
            Err(error) => println!("docker    {error:#}"),
        }
        let missing = privileges::missing_for_bpf();
        println!(
            "ebpf      {}",
            if missing.is_empty() { "all that is needed is there".to_owned() } else { missing.join("; ") }
        );
        Ok(())
    }
}

fn service() -> String {
    if !systemd::is_running() {
        return "systemd does not run on this host".into();
    }
    if !std::path::Path::new(UNIT_PATH).exists() {
        return format!("{UNIT_NAME} is not installed");
    }
    match systemd::systemctl(&["is-active", UNIT_NAME]) {
        Ok(state) => format!("{UNIT_NAME} is {}", state.trim()),
        Err(_) => format!("{UNIT_NAME} is installed and does not run"),
    }
}
