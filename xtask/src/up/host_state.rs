//! What a cluster could leave on a host, looked at before and after: interfaces, routes, mounts, cgroups, BPF pins,
//! firewall rules, sysctls. What others do on the host meanwhile is not its concern; an Engine's own traces are
//! [`super::engine_traces`]'.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::command;

/// One look at the host: a set of lines, each naming one thing.
pub struct HostState(BTreeSet<String>);

impl HostState {
    /// Looks at the host as it is now.
    pub fn read() -> Self {
        let mut seen = BTreeSet::new();
        let mut add =
            |what: &str, lines: Vec<String>| seen.extend(lines.into_iter().map(|line| format!("{what} {line}")));
        add("interface", names_in("/sys/class/net"));
        add("route", lines_of(&["ip", "-o", "route", "show", "table", "all"]));
        add("rule", lines_of(&["ip", "rule", "show"]));
        add("mount", mounts());
        add("nft", lines_of(&["nft", "list", "tables"]));
        add("pin", tree("/sys/fs/bpf", 6, false));
        add("cgroup", tree("/sys/fs/cgroup", 6, true));
        add("sysctl", sysctls("/proc/sys/net/ipv4"));
        add("sysctl", sysctls("/proc/sys/net/bridge"));
        add("netns", names_in("/run/netns"));
        Self(seen)
    }

    /// What of a cluster in `data_dir` is there now and was not before, and settings of the kernel that have other
    /// values.
    pub fn left_over(&self, after: &Self, data_dir: &Path) -> Vec<String> {
        let data_dir = data_dir.display().to_string();
        after.0.difference(&self.0).filter(|line| is_ours(line, &data_dir)).cloned().collect()
    }
}

/// Whether only a cluster of ours makes such a thing.
fn is_ours(line: &str, data_dir: &str) -> bool {
    let Some((kind, name)) = line.split_once(' ') else { return false };
    match kind {
        "interface" => name.starts_with("fl") || name.starts_with("fairlead"),
        "route" => name.contains(" dev fl") || name.contains(" dev fairlead"),
        "mount" => name.starts_with(data_dir) || name.starts_with("/run/fairlead"),
        "cgroup" => name.contains("/fairlead"),
        // Those of one interface come and go with it.
        "sysctl" => !name.contains("/conf/") || name.contains("/conf/all/") || name.contains("/conf/default/"),
        _ => name.contains("fairlead"),
    }
}

fn lines_of(words: &[&str]) -> Vec<String> {
    let [program, arguments @ ..] = words else { return Vec::new() };
    let Some(program) = command::find(program) else { return Vec::new() };
    let text = command::output(Command::new(program).args(arguments)).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn names_in(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect()
}

/// Paths below `root`, no deeper than `depth`.
fn tree(root: &str, depth: usize, only_directories: bool) -> Vec<String> {
    fn walk(directory: &Path, depth: usize, only_directories: bool, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() || !only_directories {
                found.push(entry.path().display().to_string());
            }
            if kind.is_dir() && depth > 1 {
                walk(&entry.path(), depth - 1, only_directories, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new(root), depth, only_directories, &mut found);
    found
}

/// `path=value` of the settings below `root`; counters of the kernel's own are left out.
fn sysctls(root: &str) -> Vec<String> {
    tree(root, 4, false)
        .into_iter()
        .filter(|path| !path.contains("/neigh/"))
        .filter_map(|path| {
            let value = fs::read_to_string(&path).ok()?;
            Some(format!("{path}={}", value.split_whitespace().collect::<Vec<_>>().join(" ")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_cluster_leaves_is_told() {
        let state = |lines: &[&str]| HostState(lines.iter().map(|line| (*line).to_owned()).collect());
        let before = state(&["interface eth0", "sysctl /proc/sys/net/ipv4/ip_forward=0"]);
        let after = state(&[
            "interface eth0",
            "interface fl12",
            "interface veth9",
            "mount /data/x/docker",
            "mount /elsewhere",
            "sysctl /proc/sys/net/ipv4/ip_forward=1",
        ]);
        let left = before.left_over(&after, Path::new("/data"));
        assert_eq!(left, ["interface fl12", "mount /data/x/docker", "sysctl /proc/sys/net/ipv4/ip_forward=1"]);
    }
}
