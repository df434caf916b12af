//! The layout rules: what stands at the top level, and that each file says what it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::workspace;

/// What may stand at the top level, beside files and directories whose names begin with a dot.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "control",
    "deny.toml",
    "node-agent",
    "proxy-ebpf",
    "rustfmt.toml",
    "src",
    "target",
    "tests",
    "xtask",
];
/// Names that say nothing.
const MEANINGLESS: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc", "types", "manager"];
const LONG: usize = 400;

/// Every breach of the rules, with its path.
pub fn problems() -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for entry in fs::read_dir(workspace::root()).context("cannot read the workspace")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()) {
            problems.push(format!("layout: {name} does not belong at the top level"));
        }
    }
    for path in sources()? {
        let shown = shown(&path);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
        if !text.starts_with("//!") {
            problems.push(format!("layout: {shown} does not open with `//!`: what does it decide?"));
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let parent = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        if let Some(name) = [stem, parent].iter().find(|name| MEANINGLESS.contains(&name.as_str())) {
            problems.push(format!("layout: {shown}: `{name}` does not say what the module knows"));
        }
    }
    Ok(problems)
}

/// Files beyond the length where one looks for a second concept, longest first.
pub fn long_files() -> anyhow::Result<Vec<(usize, String)>> {
    let mut long = Vec::new();
    for path in sources()? {
        let lines = fs::read_to_string(&path)?.lines().count();
        if lines > LONG {
            long.push((lines, shown(&path)));
        }
    }
    long.sort_unstable_by(|a, b| b.cmp(a));
    Ok(long)
}

fn sources() -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for directory in ["src", "control", "node-agent", "proxy-ebpf", "tests", "xtask"] {
        collect(&workspace::root().join(directory), &mut files)?;
    }
    files.sort();
    Ok(files)
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

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace::root()).unwrap_or(path).display().to_string()
}
