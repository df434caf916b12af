//! `fairlead node install`: the node as a systemd service of this host. Run again, it installs
//! the new program and restarts the service; edited settings stay.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{
    UNIT_NAME,
    managed_file::{self, Written},
    systemd,
    unit::{UNIT_PATH, unit},
};
use crate::{failure::ErrorWithHint, role::privileges};

const BINARY: &str = "/usr/local/bin/fairlead";
const CONFIG_DIR: &str = "/etc/fairlead";

/// Install this host's node as a systemd service and start it; again to upgrade it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead node install --join https://10.0.0.1:6443 --token TOKEN
  fairlead node install --join https://10.0.0.1:6443 --token TOKEN --node-name b
  fairlead node install                               # this program with the settings of before
  fairlead node install --print                       # only show the unit

A node that is installed already is restarted with this program; its pods keep running. An edited /etc/fairlead/node.yaml is
kept, and what would have been written is in node.yaml.new beside it.")]
pub struct Install {
    /// URL of the control service; may be left out where the node is installed already
    #[arg(long, value_name = "URL")]
    join: Option<String>,
    /// Join token, kept in /etc/fairlead/token (mode 0600)
    #[arg(long, value_name = "TOKEN", env = "FAIRLEAD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Name of the Node object [default: this host's name]
    #[arg(long, value_name = "NAME", requires = "join")]
    node_name: Option<String>,
    /// Holds all state of the node [default: /var/lib/fairlead]
    #[arg(long, value_name = "DIR", requires = "join")]
    data_dir: Option<PathBuf>,
    /// Docker Engine that runs the containers [default: $DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL", requires = "join")]
    docker_host: Option<String>,
    /// Replace the settings even if they were edited; the edited ones are kept in node.yaml.old
    #[arg(long)]
    force: bool,
    /// Print the unit and do nothing
    #[arg(long)]
    print: bool,
}

impl Install {
    /// Runs the verb to its end.
    pub fn run(self) -> anyhow::Result<()> {
        let config = Path::new(CONFIG_DIR).join("node.yaml");
        let unit = unit(Path::new(BINARY), &config);
        if self.print {
            print!("{unit}");
            return Ok(());
        }
        if self.join.is_none() && !config.exists() {
            return Err(ErrorWithHint::new(
                "--join URL is needed: which cluster is this a node of?",
                "`fairlead token create --print-join-command` on the server prints it with a token",
            )
            .into());
        }
        privileges::require_root("fairlead node install")?;
        systemd::require()?;
        install_binary()?;
        fs::create_dir_all(CONFIG_DIR).with_context(|| format!("cannot make {CONFIG_DIR}"))?;
        let token_file = Path::new(CONFIG_DIR).join("token");
        if let Some(token) = &self.token {
            managed_file::replace(&token_file, &format!("{token}\n"), 0o600)?;
        }
        if let Some(join) = &self.join {
            // Without a new token, that of an earlier installation is kept.
            let token_file = token_file.exists().then_some(token_file.as_path());
            let written = managed_file::write(&config, &self.settings(join, token_file)?, self.force)?;
            report(&config, &written);
        }
        managed_file::replace(Path::new(UNIT_PATH), &unit, 0o644)?;
        start(systemd::systemctl)?;
        println!("{UNIT_NAME} is installed and started; its settings are in {}", config.display());
        println!("look at it with: fairlead node status, or journalctl -u {UNIT_NAME}");
        Ok(())
    }

    /// The node's configuration file.
    fn settings(&self, join: &str, token_file: Option<&Path>) -> anyhow::Result<String> {
        let mut settings = serde_json::json!({"join": join});
        let mut set = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                settings[key] = value.into();
            }
        };
        set("data-dir", self.data_dir.as_ref().map(|path| path.display().to_string()));
        set("docker-host", self.docker_host.clone().or_else(docker_host_of_environment));
        set("token-file", token_file.map(|path| path.display().to_string()));
        set("node-name", self.node_name.clone());
        crate::yaml::write(&settings)
    }
}

/// The service does not see the environment of this shell.
fn docker_host_of_environment() -> Option<String> {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty())
}

/// Says what became of the settings, where it is not what one expects.
fn report(config: &Path, written: &Written) {
    let config = config.display();
    match written {
        Written::Replaced | Written::Unchanged => {}
        Written::Kept { proposal } => {
            let proposal = proposal.display();
            eprintln!(
                "Warning: {config} was edited and is kept; the settings given now are in {proposal} and not in force."
            );
            eprintln!("hint: compare them: diff -u {config} {proposal}");
            eprintln!("hint: --force replaces the edited file and keeps a copy of it");
        }
        Written::Forced { backup } => {
            eprintln!("Warning: {config} was edited and is replaced; the edited one is {}.", backup.display());
        }
    }
}

/// Makes systemd read the unit, start it at every boot, and run the program that is installed now.
fn start(mut systemctl: impl FnMut(&[&str]) -> anyhow::Result<String>) -> anyhow::Result<()> {
    // A restart, since `enable --now` leaves a service that runs already with its old program and settings.
    for words in [&["daemon-reload"][..], &["enable", UNIT_NAME], &["restart", UNIT_NAME]] {
        systemctl(words)?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        install: Install,
    }

    #[test]
    fn an_installed_service_is_restarted() {
        let mut asked = Vec::new();
        start(|words| {
            asked.push(words.join(" "));
            Ok(String::new())
        })
        .expect("all succeed");
        assert_eq!(asked, ["daemon-reload", "enable fairlead-node.service", "restart fairlead-node.service"]);
    }

    #[test]
    fn the_settings_hold_what_was_given_and_a_token_that_there_is() {
        let words = ["install", "--join", "https://a:1", "--node-name", "b", "--docker-host", "unix:///d.sock"];
        let install = Line::parse_from(words).install;
        let settings = install.settings("https://a:1", Some(Path::new("/etc/fairlead/token"))).expect("plain values");
        let expected =
            "docker-host: unix:///d.sock\njoin: https://a:1\nnode-name: b\ntoken-file: /etc/fairlead/token\n";
        assert_eq!(settings, expected);
    }

    #[test]
    fn settings_without_the_cluster_are_refused() {
        for flags in [["--node-name", "b"], ["--data-dir", "/srv"], ["--docker-host", "tcp://a:1"]] {
            assert!(Line::try_parse_from(["install", flags[0], flags[1]]).is_err(), "{flags:?}");
        }
        assert!(Line::try_parse_from(["install"]).is_ok(), "an upgrade needs no flags");
    }
}
