//! Whether systemd runs this host, and its commands.

use std::{path::Path, process::Command};

use anyhow::{Context, bail};

use crate::failure::ErrorWithHint;

/// `sd_booted(3)`
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// An error that says so where systemd does not run.
pub fn require() -> anyhow::Result<()> {
    if is_running() {
        return Ok(());
    }
    Err(ErrorWithHint::new(
        "systemd does not run on this host, so there is nothing to install the node into",
        "run `fairlead node run …` under whatever starts services here",
    )
    .into())
}

/// `systemctl` with these words; its output on success.
pub fn systemctl(words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("systemctl").args(words).output().context("cannot run systemctl")?;
    if !output.status.success() {
        bail!("systemctl {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
