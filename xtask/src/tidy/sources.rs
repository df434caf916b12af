//! The tree's Rust files, read once for all checks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::workspace;

/// Where Rust files are kept; the first two words of the layout.
const DIRECTORIES: &[&str] = &["src", "client", "control", "node-agent", "proxy-ebpf", "serving", "tests", "xtask"];

/// One file of the tree.
pub struct Source {
    /// Relative to the workspace's root.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

impl Source {
    /// Every Rust file, in the order of its path.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        let mut files = Vec::new();
        for directory in DIRECTORIES {
            collect(&workspace::root().join(directory), &mut files)?;
        }
        files.sort();
        files.iter().map(|file| Self::read(file)).collect()
    }

    fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let path = file.strip_prefix(workspace::root()).unwrap_or(file).to_owned();
        Ok(Self { path, text })
    }

    /// The path as messages show it.
    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_file_is_among_the_sources_and_what_was_built_is_not() {
        let sources = Source::all().expect("readable");
        assert!(sources.iter().any(|source| source.shown() == "xtask/src/tidy/sources.rs"));
        assert!(!sources.iter().any(|source| source.path.iter().any(|part| part == "target")));
    }
}
