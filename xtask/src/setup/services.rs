//! Keeps Debian packages from starting services while they are installed, and from having them started at the next
//! boot.
//!
//! Packages ask `/usr/sbin/policy-rc.d` before they start a service (invoke-rc.d(8)): for the time of the installation
//! it answers no. It answers so only while this process runs, so that one that is killed leaves nothing in force.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::command;

const POLICY: &str = "/usr/sbin/policy-rc.d";
/// The second line of the script: distinguishes it from a policy of the administrator's.
const MARK: &str = "# Written by `cargo xtask setup` while it installs packages.";

/// No service is started while this is held.
pub struct ServiceHold {
    policy: PathBuf,
    /// Units that were enabled before; `None` where systemd does not run this host.
    enabled: Option<BTreeSet<String>>,
}

impl ServiceHold {
    /// Puts the policy in place. A policy of the administrator's is moved aside until [`ServiceHold::release`].
    pub fn take() -> anyhow::Result<Self> {
        let systemd = Path::new("/run/systemd/system").is_dir();
        let enabled = if systemd { Some(enabled_units()?) } else { None };
        let policy = PathBuf::from(POLICY);
        put_policy(&policy, std::process::id())?;
        Ok(Self { policy, enabled })
    }

    /// Removes the policy, and disables the units that were enabled since: the user did not ask for them at boot.
    pub fn release(self) -> anyhow::Result<()> {
        remove_policy(&self.policy)?;
        let Some(before) = self.enabled else { return Ok(()) };
        let new = added(&before, &enabled_units()?);
        if !new.is_empty() {
            command::output(Command::new("systemctl").arg("disable").args(&new))?;
            let units = new.join(", ");
            eprintln!("  installed, and neither started nor enabled: {units} (systemctl enable --now UNIT does both)");
        }
        Ok(())
    }
}

/// What the administrator's own policy is called meanwhile.
fn aside(policy: &Path) -> PathBuf {
    policy.with_extension("d.before-fairlead")
}

/// Refuses every action while the process `pid` runs, and none after it.
fn script(pid: u32) -> String {
    format!("#!/bin/sh\n{MARK}\n[ -d /proc/{pid} ] || exit 0\nexit 101\n")
}

fn put_policy(policy: &Path, pid: u32) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", policy.display());
    if let Some(text) = read(policy)?
        && !text.contains(MARK)
    {
        fs::rename(policy, aside(policy)).with_context(|| format!("cannot move {} aside", policy.display()))?;
    }
    fs::write(policy, script(pid)).with_context(context)?;
    fs::set_permissions(policy, fs::Permissions::from_mode(0o755)).with_context(context)
}

fn remove_policy(policy: &Path) -> anyhow::Result<()> {
    let aside = aside(policy);
    if aside.exists() {
        return fs::rename(&aside, policy).with_context(|| format!("cannot put {} back", policy.display()));
    }
    match fs::remove_file(policy) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", policy.display()))
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Names of the services and sockets that systemd starts at boot.
fn enabled_units() -> anyhow::Result<BTreeSet<String>> {
    let mut systemctl = Command::new("systemctl");
    systemctl.args(["list-unit-files", "--type=service,socket", "--state=enabled", "--no-legend", "--plain"]);
    Ok(first_words(&command::output(&mut systemctl)?))
}

fn first_words(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn added(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    after.difference(before).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::process::Child;

    use super::*;

    /// What the policy says of starting a service.
    fn verdict(policy: &Path) -> Option<i32> {
        Command::new("sh").arg(policy).args(["docker", "start"]).status().expect("a shell").code()
    }

    fn end(mut child: Child) -> u32 {
        let pid = child.id();
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        pid
    }

    #[test]
    fn nothing_is_started_while_the_setup_runs_and_anything_after_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let policy = directory.path().join("policy-rc.d");
        put_policy(&policy, std::process::id()).expect("writable");
        assert_eq!(verdict(&policy), Some(101));
        remove_policy(&policy).expect("removable");
        assert!(!policy.exists());

        // A setup that was killed leaves its policy, which then allows everything.
        let ended = end(Command::new("sleep").arg("60").spawn().expect("sleep"));
        put_policy(&policy, ended).expect("writable");
        assert_eq!(verdict(&policy), Some(0));
        put_policy(&policy, std::process::id()).expect("one of its own is replaced");
        assert!(!aside(&policy).exists());
    }

    #[test]
    fn a_policy_of_the_administrator_is_put_back() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let policy = directory.path().join("policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 7\n").expect("writable");
        put_policy(&policy, std::process::id()).expect("writable");
        assert_eq!(verdict(&policy), Some(101));
        // Killed and started again: the administrator's is still the one that comes back.
        put_policy(&policy, std::process::id()).expect("writable");
        remove_policy(&policy).expect("removable");
        assert_eq!(verdict(&policy), Some(7));
    }

    #[test]
    fn only_units_that_are_new_are_disabled() {
        let before = first_words("ssh.service enabled enabled\ncron.service enabled\n");
        let after = first_words(
            "ssh.service enabled enabled\ncron.service enabled\ndocker.service enabled\ndocker.socket enabled\n",
        );
        assert_eq!(added(&before, &after), ["docker.service", "docker.socket"]);
    }
}
