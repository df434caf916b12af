//! `fairlead node install`: the node as a systemd service of this host.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{
    UNIT_NAME, systemd,
    unit::{UNIT_PATH, unit},
};
use crate::role::privileges;

const BINARY: &str = "/usr/local/bin/fairlead";
const CONFIG_DIR: &str = "/etc/fairlead";

/// Install this host's node as a systemd service and start it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead node install --join https://10.0.0.1:6443 --token TOKEN
  fairlead node install --join https://10.0.0.1:6443 --token TOKEN --node-name b
  fairlead node install --print                       # only show the unit")]
pub struct Install {
    /// URL of the control service
    #[arg(long, value_name = "URL")]
    join: Option<String>,
    /// Join token, kept in /etc/fairlead/token (mode 0600)
    #[arg(long, value_name = "TOKEN", env = "FAIRLEAD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Name of the Node object [default: this host's name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Holds all state of the node
    #[arg(long, value_name = "DIR", default_value = crate::role::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// Docker Engine that runs the containers
    #[arg(long, value_name = "URL", env = "DOCKER_HOST", default_value = "unix:///var/run/docker.sock")]
    docker_host: String,
    /// Print the unit and do nothing
    #[arg(long)]
    print: bool,
}

impl Install {
    pub fn run(self) -> anyhow::Result<()> {
        let config = Path::new(CONFIG_DIR).join("node.yaml");
        let unit = unit(Path::new(BINARY), &config);
        if self.print {
            print!("{unit}");
            return Ok(());
        }
        let join = self.join.clone().context("--join URL is needed: which cluster is this a node of?")?;
        privileges::require_root("fairlead node install")?;
        systemd::require()?;
        install_binary()?;
        fs::create_dir_all(CONFIG_DIR).with_context(|| format!("cannot make {CONFIG_DIR}"))?;
        let token_file = Path::new(CONFIG_DIR).join("token");
        if let Some(token) = &self.token {
            write(&token_file, &format!("{token}\n"), 0o600)?;
        }
        write(&config, &self.settings(&join, &token_file)?, 0o644)?;
        write(Path::new(UNIT_PATH), &unit, 0o644)?;
        systemd::systemctl(&["daemon-reload"])?;
        systemd::systemctl(&["enable", "--now", UNIT_NAME])?;
        println!("{UNIT_NAME} is installed and started; its settings are in {}", config.display());
        println!("look at it with: fairlead node status, or journalctl -u {UNIT_NAME}");
        Ok(())
    }

    fn settings(&self, join: &str, token_file: &Path) -> anyhow::Result<String> {
        let mut settings =
            serde_json::json!({"join": join, "data-dir": self.data_dir, "docker-host": self.docker_host});
        if self.token.is_some() {
            settings["token-file"] = serde_json::json!(token_file);
        }
        if let Some(name) = &self.node_name {
            settings["node-name"] = serde_json::json!(name);
        }
        crate::yaml::write(&settings)
    }
}

/// Copies this program, unless it is the installed one; by a rename, so that a running one is not written into.
fn install_binary() -> anyhow::Result<()> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    if own == Path::new(BINARY) {
        return Ok(());
    }
    let fresh = format!("{BINARY}.new");
    fs::copy(&own, &fresh).with_context(|| format!("cannot copy {} to {fresh}", own.display()))?;
    fs::rename(&fresh, BINARY).with_context(|| format!("cannot put {BINARY} in place"))
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path).with_context(context)?;
    file.write_all(text.as_bytes()).with_context(context)
}
