//! Kills a process of a container with all its descendants. Never touches a process of another container, or of the
//! host.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant},
};

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
///
/// Descendants are looked for until there are no more, or for so long: those that are found by then are killed.
pub(super) fn kill(root: i32, container: &str, within: Duration) -> io::Result<()> {
    let begun = Instant::now();
    let cgroups = match Process::new(root).and_then(|process| process.cgroups()) {
        Ok(cgroups) => cgroups,
        Err(ProcError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(io::Error::other(error)),
    };
    // The Engine may run in another PID namespace, where this number is another process.
    if !cgroups.into_iter().any(|cgroup| cgroup.pathname.contains(container)) {
        return Err(io::Error::other(format!("process {root} is not in container {container}")));
    }
    let mut tree = BTreeSet::from([root]);
    let stopped = stop_all(&mut tree, || begun.elapsed() >= within);
    // Also where not all were stopped: nothing may stay stopped.
    let killed = tree.into_iter().map(|pid| send(pid, Signal::SIGKILL)).fold(Ok(()), Result::and);
    stopped.and(killed)
}

/// Stops the processes in `tree` and adds their descendants, until all are seen to be stopped and no child is missing.
///
/// Children are looked for once their parent is seen to be stopped: it starts none any more, and none of them can end
/// for good, so that its number cannot become that of another process.
fn stop_all(tree: &mut BTreeSet<i32>, is_late: impl Fn() -> bool) -> io::Result<()> {
    tree.iter().try_for_each(|pid| send(*pid, Signal::SIGSTOP))?;
    let mut stopped = BTreeSet::new();
    loop {
        let table = process_table()?;
        let children = children_of(&stopped, &table);
        let is_complete = children.is_subset(tree) && tree.iter().all(|pid| stopped.contains(pid));
        if is_complete {
            return Ok(());
        }
        if is_late() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it starts processes faster than they are found"));
        }
        stopped = tree.iter().filter(|pid| table.get(pid).is_none_or(|process| process.is_stopped)).copied().collect();
        // In the tree before they are stopped: what is in it is killed, whatever fails.
        let new: Vec<i32> = children.difference(tree).copied().collect();
        tree.extend(&new);
        new.into_iter().try_for_each(|pid| send(pid, Signal::SIGSTOP))?;
    }
}

/// What is known of a process.
struct Known {
    parent: i32,
    /// Or has ended.
    is_stopped: bool,
}

fn process_table() -> io::Result<BTreeMap<i32, Known>> {
    let mut table = BTreeMap::new();
    for process in all_processes().map_err(io::Error::other)? {
        match process.and_then(|process| process.stat()) {
            Ok(stat) => {
                let is_stopped = matches!(stat.state, 'T' | 't' | 'Z' | 'X');
                table.insert(stat.pid, Known { parent: stat.ppid, is_stopped });
            }
            // A process may end while it is looked at.
            Err(ProcError::NotFound(_)) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(table)
}

fn children_of(parents: &BTreeSet<i32>, table: &BTreeMap<i32, Known>) -> BTreeSet<i32> {
    table.iter().filter(|(_, process)| parents.contains(&process.parent)).map(|(pid, _)| *pid).collect()
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

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_was_stopped_is_killed_though_the_rest_was_not_looked_for_in_time() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let error = kill(i32::try_from(child.id()).unwrap(), "", Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        child.wait().unwrap();
    }

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
        let children = children_of(&BTreeSet::from([parent]), &process_table().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(children.contains(&pid), "{pid} is not among {children:?}");
    }

    #[test]
    fn a_process_of_another_container_is_left_alone() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(kill(pid, "no-such-container", LONG).unwrap_err().to_string().contains("is not in container"));
        assert!(child.try_wait().unwrap().is_none(), "it was killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_chain_of_processes_that_each_start_another_is_killed() {
        use std::io::Read;
        // Each waits for the next; the pipe is open as long as any of them lives.
        let script = "f() { if [ $1 -gt 0 ]; then (f $(($1 - 1))); else sleep 1000; fi; true; }; f 200";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        kill(i32::try_from(child.id()).unwrap(), "", LONG).unwrap();
        child.wait().unwrap();
        let mut output = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    }

    #[test]
    fn a_process_goes_with_its_descendants() {
        use std::io::Read;
        let mut child =
            Command::new("sh").args(["-c", "sh -c 'sleep 1000; true' & wait"]).stdout(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let grandchildren = |table| children_of(&children_of(&BTreeSet::from([pid]), &table), &table);
        while grandchildren(process_table().unwrap()).is_empty() {
            std::thread::yield_now();
        }
        // Every cgroup path holds the empty name.
        kill(pid, "", LONG).unwrap();
        child.wait().unwrap();
        // The pipe ends when the last descendant that holds it has.
        let mut output = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
        assert!(output.is_empty());
    }
}
