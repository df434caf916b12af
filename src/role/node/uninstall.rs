//! `fairlead node uninstall`: undoes what `node install` did.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, bail};

use super::{UNIT_NAME, systemd, unit::UNIT_PATH};
use crate::role::privileges;

/// Stop this host's node and remove its systemd service
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead node uninstall")]
pub struct Uninstall {}

impl Uninstall {
    /// Runs the verb to its end.
    pub fn run(self) -> anyhow::Result<()> {
        privileges::require_root("fairlead node uninstall")?;
        systemd::require()?;
        if !Path::new(UNIT_PATH).exists() {
            bail!("{UNIT_NAME} is not installed: there is no {UNIT_PATH}");
        }
        systemd::systemctl(&["disable", "--now", UNIT_NAME])?;
        for path in [UNIT_PATH, "/etc/fairlead/node.yaml", "/etc/fairlead/node.yaml.new", "/etc/fairlead/token"] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {path}"));
                }
                _ => {}
            }
        }
        systemd::systemctl(&["daemon-reload"])?;
        println!(
            "{UNIT_NAME} is removed. The program, the data directory and pods that still run are left as they are."
        );
        Ok(())
    }
}
