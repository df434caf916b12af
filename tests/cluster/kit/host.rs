//! One host of a lab: a network namespace and a cgroup2 subtree. Programs started on it belong to both.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{Result, run, wait};

/// A network namespace with a cgroup of its own; both go with the value.
pub struct Host {
    /// Name of the namespace: `LAB-HOST`.
    pub name: String,
    pub netns: PathBuf,
    pub cgroup: PathBuf,
}

impl Host {
    pub fn new(lab: &str, name: &str) -> Result<Self> {
        let name = format!("{lab}-{name}");
        let root = cgroup2_root().ok_or("no cgroup2 hierarchy is mounted")?;
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let host = Self { netns: Path::new("/run/netns").join(&name), cgroup: root.join(&name), name };
        std::fs::create_dir_all(&host.cgroup)?;
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// A command that will run in this host's namespace and cgroup.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        command_in(program, &self.netns, &self.cgroup)
    }

    /// `ip ARGUMENTS` on this host.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(self.command("ip").args(arguments.split_whitespace()))
    }

    /// Runs a shell line on this host and returns what it printed.
    pub fn sh(&self, line: &str) -> Result<String> {
        run(self.command("sh").args(["-c", line]))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("cannot remove the namespace {}: {error}", self.name);
        }
        remove_cgroups(&self.cgroup);
    }
}

/// A command that will run in the network namespace at `netns` and in `cgroup`.
pub fn command_in(program: impl AsRef<std::ffi::OsStr>, netns: &Path, cgroup: &Path) -> Command {
    let mut command = Command::new(program);
    let netns = netns.to_owned();
    let procs = cgroup.join("cgroup.procs");
    // SAFETY: between fork and exec only system calls are made; the paths were allocated before.
    unsafe {
        command.pre_exec(move || {
            let netns = File::open(&netns)?;
            if libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            std::fs::write(&procs, b"0")
        });
    }
    command
}

/// Removes a cgroup and the cgroups below it, whose last processes may still be ending.
fn remove_cgroups(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let removed = wait::until("its processes to end", Duration::from_secs(5), || Ok(std::fs::remove_dir(cgroup)?));
    if let Err(error) = removed {
        eprintln!("cannot remove the cgroup {}: {error}", cgroup.display());
    }
}

/// Where cgroup2 is mounted.
pub fn cgroup2_root() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.find(|fields| fields.get(2) == Some(&"cgroup2")).map(|fields| PathBuf::from(fields[1]))
}
