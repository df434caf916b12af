//! Installs Debian packages: without recommended ones, without questions, with the lists updated only where they must
//! be.

use std::process::Command;

use anyhow::{Context, bail};

use super::services::ServiceHold;
use crate::{
    command,
    progress::{self, Step},
};

/// Installs `packages` as part of `step`.
pub fn install(step: &Step, packages: &[&str]) -> anyhow::Result<()> {
    if command::find("apt-get").is_none() {
        bail!("this is not a Debian machine; install by hand what has: {}", packages.join(", "));
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "installing packages needs root: run this as root, or first: apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
    }
    // Only the programs are needed; services that packages start would stay after Ctrl-C.
    let hold = ServiceHold::take()?;
    let outcome = install_held(step, packages);
    outcome.and(hold.release())
}

fn install_held(step: &Step, packages: &[&str]) -> anyhow::Result<()> {
    // A fresh machine has no lists at all, and apt knows no package then.
    let updated = !packages.iter().all(|package| is_known(package));
    if updated {
        update(step)?;
    }
    match try_install(step, packages) {
        // Old lists name files that the mirror has replaced since.
        Err(_) if !updated => {
            update(step)?;
            try_install(step, packages)
        }
        outcome => outcome,
    }
    .context("cannot install the packages; is the network there?")
}

/// Whether apt's lists have an installable version.
fn is_known(package: &str) -> bool {
    let policy = Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C").output();
    policy.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .any(|line| line.trim().strip_prefix("Candidate:").is_some_and(|version| version.trim() != "(none)"))
    })
}

fn update(step: &Step) -> anyhow::Result<()> {
    step.at("apt-get update");
    progress::follow(step, apt_get().arg("update"), |_, _| {})
}

fn try_install(step: &Step, packages: &[&str]) -> anyhow::Result<()> {
    step.of(200);
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends", "-o", "APT::Status-Fd=1"]).args(packages);
    progress::follow(step, &mut command, |step, line| {
        if let Some((position, text)) = status(line) {
            step.position(position);
            step.at(text);
        }
    })
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C").args(["-q", "-o", "DPkg::Lock::Timeout=120"]);
    command
}

/// Position (of 200: half for downloads, half for installation) and text of a line of APT's status protocol.
fn status(line: &str) -> Option<(u64, String)> {
    let mut parts = line.splitn(4, ':');
    let offset = match parts.next()? {
        "dlstatus" => 0,
        "pmstatus" => 100,
        _ => return None,
    };
    let percent: u64 = parts.nth(1)?.trim().split('.').next()?.parse().ok()?;
    Some((offset + percent.min(100), parts.next().unwrap_or_default().trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_status_lines_move_the_bar() {
        assert_eq!(status("dlstatus:1:20.5:Retrieving file 1 of 3"), Some((20, "Retrieving file 1 of 3".into())));
        assert_eq!(
            status("pmstatus:nftables:50.0:Unpacking nftables (amd64)"),
            Some((150, "Unpacking nftables (amd64)".into()))
        );
        assert_eq!(status("Reading package lists..."), None);
    }
}
