//! What a Docker Engine leaves outside the directories it is given: its key, run directories, and a cgroup in every
//! hierarchy.
//!
//! Only what was not there before is taken away, and of directories only empty ones: what is in use by then is told.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// What was not there before the Engine was started.
pub struct EngineTraces(Vec<PathBuf>);

/// Directories come after what is in them.
const OUTSIDE: [&str; 6] = [
    "/etc/docker/key.json",
    "/etc/docker",
    "/run/docker/plugins",
    "/run/docker",
    "/run/containerd/s",
    "/run/containerd",
];

impl EngineTraces {
    /// To be asked before the start.
    pub fn expected() -> Self {
        let outside = OUTSIDE.iter().map(PathBuf::from);
        Self(outside.chain(cgroups(Path::new("/sys/fs/cgroup"))).filter(|path| !path.exists()).collect())
    }

    /// To be asked after the end.
    pub fn remove(self) -> anyhow::Result<()> {
        self.0.iter().try_for_each(|path| remove(path).with_context(|| format!("cannot remove {}", path.display())))
    }
}

/// The parent of its containers' cgroups: in the one hierarchy, or in each of those mounted below `root`.
fn cgroups(root: &Path) -> Vec<PathBuf> {
    if root.join("cgroup.controllers").exists() {
        return vec![root.join("docker")];
    }
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    // Some are links to others.
    let hierarchies = hierarchies.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    hierarchies.map(|entry| entry.path().join("docker")).collect()
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_made_goes_and_what_is_in_use_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (key, empty, used) = (dir.path().join("key"), dir.path().join("empty"), dir.path().join("used"));
        fs::write(&key, "").unwrap();
        fs::create_dir(&empty).unwrap();
        fs::create_dir_all(used.join("by another")).unwrap();
        EngineTraces(vec![key.clone(), empty.clone(), dir.path().join("absent")]).remove().unwrap();
        assert!(!key.exists() && !empty.exists());
        let told = EngineTraces(vec![used.clone()]).remove().unwrap_err().to_string();
        assert!(told.contains(&used.display().to_string()), "{told}");
    }

    #[test]
    fn every_hierarchy_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("memory")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(cgroups(dir.path()), [dir.path().join("memory/docker")]);
        fs::write(dir.path().join("cgroup.controllers"), "").unwrap();
        assert_eq!(cgroups(dir.path()), [dir.path().join("docker")]);
    }
}
