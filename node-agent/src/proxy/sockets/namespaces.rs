//! The network namespaces of the processes in a cgroup.

use std::{collections::BTreeSet, fs::File, os::unix::fs::MetadataExt, path::Path};

/// Each namespace once. Processes and cgroups that end meanwhile are left out: so are their sockets.
pub fn of_processes(cgroup: &Path) -> Vec<File> {
    let mut known = BTreeSet::new();
    let mut namespaces = Vec::new();
    for process in processes(cgroup) {
        let Ok(namespace) = File::open(format!("/proc/{process}/ns/net")) else { continue };
        let Ok(metadata) = namespace.metadata() else { continue };
        if known.insert(metadata.ino()) {
            namespaces.push(namespace);
        }
    }
    namespaces
}

fn processes(cgroup: &Path) -> Vec<u32> {
    let mut processes = Vec::new();
    let mut cgroups = vec![cgroup.to_owned()];
    while let Some(directory) = cgroups.pop() {
        if let Ok(text) = std::fs::read_to_string(directory.join("cgroup.procs")) {
            processes.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        cgroups.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    processes
}
