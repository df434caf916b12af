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

/// Stops the processes in `tree` and adds their descendants, so that none starts another while the rest is looked for.
fn stop_all(tree: &mut BTreeSet<i32>, is_late: impl Fn() -> bool) -> io::Result<()> {
    let mut found = tree.clone();
    while !found.is_empty() {
        found.iter().try_for_each(|pid| send(*pid, Signal::SIGSTOP))?;
        if is_late() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it starts processes faster than they are found"));
        }
        found = descendants(tree, &children_by_parent()?);
        tree.extend(&found);
    }
    Ok(())
}

type ChildrenByParent = BTreeMap<i32, Vec<i32>>;

fn children_by_parent() -> io::Result<ChildrenByParent> {
    let mut children = ChildrenByParent::new();
    for process in all_processes().map_err(io::Error::other)? {
        match process.and_then(|process| process.stat()) {
            Ok(stat) => children.entry(stat.ppid).or_default().push(stat.pid),
            // A process may end while it is looked at.
            Err(ProcError::NotFound(_)) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(children)
}

/// Children of the processes in `tree`, and theirs, that are not in it.
fn descendants(tree: &BTreeSet<i32>, children: &ChildrenByParent) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut parents: Vec<i32> = tree.iter().copied().collect();
    while let Some(parent) = parents.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if !tree.contains(child) && found.insert(*child) {
                parents.push(*child);
            }
        }
    }
    found
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
    fn all_generations_are_found_at_once() {
        let children = ChildrenByParent::from([(1, vec![2, 3]), (2, vec![4]), (4, vec![5, 6]), (7, vec![8])]);
        assert_eq!(descendants(&BTreeSet::from([2]), &children), BTreeSet::from([4, 5, 6]));
        assert_eq!(descendants(&BTreeSet::from([1, 4]), &children), BTreeSet::from([2, 3, 5, 6]));
        // Numbers are used again while the table is read: a circle in it is followed once.
        let circle = ChildrenByParent::from([(1, vec![2]), (2, vec![3]), (3, vec![2, 1])]);
        assert_eq!(descendants(&BTreeSet::from([1]), &circle), BTreeSet::from([2, 3]));
    }

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
        let children = descendants(&BTreeSet::from([parent]), &children_by_parent().unwrap());
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
    fn a_process_goes_with_its_descendants() {
        use std::io::Read;
        let mut child =
            Command::new("sh").args(["-c", "sh -c 'sleep 1000; true' & wait"]).stdout(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while descendants(&BTreeSet::from([pid]), &children_by_parent().unwrap()).len() < 2 {
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
