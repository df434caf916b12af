//! Kills a process of a container with all its descendants. Never touches a process of another container, or of the
//! host.

use std::{collections::BTreeSet, fs, io};

use nix::{
    errno::Errno,
    sys::signal::{self, Signal},
    unistd::Pid,
};

/// Kills `root`, a process in `container`, and its descendants. Not an error where it is gone.
pub(super) fn kill(root: i32, container: &str) -> io::Result<()> {
    let cgroup = match fs::read_to_string(format!("/proc/{root}/cgroup")) {
        Ok(cgroup) => cgroup,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // The Engine may run in another PID namespace, where this number is another process.
    if !cgroup.contains(container) {
        return Err(io::Error::other(format!("process {root} is not in container {container}")));
    }
    // Stopped first, so that none starts another while the rest is looked for.
    let mut tree = BTreeSet::new();
    let mut found = vec![root];
    while !found.is_empty() {
        for pid in &found {
            send(*pid, Signal::SIGSTOP)?;
        }
        tree.extend(found);
        found = children_of(&tree)?;
    }
    tree.into_iter().try_for_each(|pid| send(pid, Signal::SIGKILL))
}

/// Children of the processes in `tree` that are not in it.
fn children_of(tree: &BTreeSet<i32>) -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A process may end while it is looked at.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if !tree.contains(&pid) && parent(&stat).is_some_and(|parent| tree.contains(&parent)) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// The parent in a line of `/proc/PID/stat`: the second field after the name, which stands in brackets and may hold any
/// character.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn send(pid: i32, signal: Signal) -> io::Result<()> {
    match signal::kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_parent_is_found_behind_a_name_with_brackets_and_blanks() {
        assert_eq!(parent("12 (a) b) c) S 7 12 12 0"), Some(7));
        assert_eq!(parent("12 (a"), None);
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
