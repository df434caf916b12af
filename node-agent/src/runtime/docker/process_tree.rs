//! Kills a process of a container with all its descendants. Never touches a process of another container, or of the
//! host.

use std::{collections::BTreeSet, io};

use nix::{
    errno::Errno,
    sys::signal::{self, Signal},
    unistd::Pid,
};
use procfs::{
    ProcError,
    process::{Process, all_processes},
};

/// Kills `root`, a process in `container`, and its descendants. Not an error where it is gone.
pub(super) fn kill(root: i32, container: &str) -> io::Result<()> {
    let cgroups = match Process::new(root).and_then(|process| process.cgroups()) {
        Ok(cgroups) => cgroups,
        Err(ProcError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(io::Error::other(error)),
    };
    // The Engine may run in another PID namespace, where this number is another process.
    if !cgroups.into_iter().any(|cgroup| cgroup.pathname.contains(container)) {
        return Err(io::Error::other(format!("process {root} is not in container {container}")));
    }
    // Stopped first, so that none starts another while the rest is looked for.
    let mut tree = BTreeSet::new();
    let mut found = Ok(vec![root]);
    while let Ok(pids) = &found
        && !pids.is_empty()
    {
        for pid in pids {
            send(*pid, Signal::SIGSTOP)?;
        }
        tree.extend(pids);
        found = children_of(&tree);
    }
    // Also where the rest cannot be found: nothing may stay stopped.
    tree.into_iter().try_for_each(|pid| send(pid, Signal::SIGKILL))?;
    found.map(drop)
}

/// Children of the processes in `tree` that are not in it.
fn children_of(tree: &BTreeSet<i32>) -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for process in all_processes().map_err(io::Error::other)? {
        match process.and_then(|process| process.stat()) {
            Ok(stat) if !tree.contains(&stat.pid) && tree.contains(&stat.ppid) => children.push(stat.pid),
            // A process may end while it is looked at.
            Ok(_) | Err(ProcError::NotFound(_)) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(children)
}

fn send(pid: i32, signal: Signal) -> io::Result<()> {
    match signal::kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt, fs::symlink},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_child_is_found_whatever_its_name_is() {
        let directory = tempfile::tempdir().unwrap();
        // The name of a process is any bytes, and it chooses them itself.
        let program = directory.path().join(OsStr::from_bytes(b") S 1 \xff ("));
        symlink("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program).arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while !Process::new(pid).and_then(|process| process.stat()).unwrap().comm.starts_with(')') {
            std::thread::yield_now();
        }
        let parent = i32::try_from(std::process::id()).unwrap();
        let children = children_of(&BTreeSet::from([parent])).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(children.contains(&pid), "{pid} is not among {children:?}");
    }

    #[test]
    fn a_process_of_another_container_is_left_alone() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(kill(pid, "no-such-container").unwrap_err().to_string().contains("is not in container"));
        assert!(child.try_wait().unwrap().is_none(), "it was killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_goes_with_its_descendants() {
        use std::io::Read;
        let mut child =
            Command::new("sh").args(["-c", "sh -c 'sleep 1000; true' & wait"]).stdout(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while children_of(&BTreeSet::from([pid])).unwrap().is_empty() {
            std::thread::yield_now();
        }
        // Every cgroup path holds the empty name.
        kill(pid, "").unwrap();
        child.wait().unwrap();
        // The pipe ends when the last descendant that holds it has.
        let mut output = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
        assert!(output.is_empty());
    }
}
