//! The page that says where the code is: what it names exists, and every part of the tree is named.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context;

use crate::workspace;

const PAGE: &str = "docs/architecture.md";
/// The directories whose own directories the page names.
const PARTS: &[&str] = &[
    "src",
    "control/src",
    "control/controllers/src",
    "control/kinds/src",
    "control/store/src",
    "node-agent/src",
    "tests",
];
/// What code spans on the page begin with if they are paths of the tree.
const ROOTS: &[&str] = &["src/", "client/", "control/", "node-agent/", "proxy-ebpf/", "tests/", "xtask/"];

/// Every path that the page names and that is not there, and every part that it does not name.
pub fn problems() -> anyhow::Result<Vec<String>> {
    let root = workspace::root();
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let named = named(&page);
    let gone = named.iter().filter(|path| !root.join(path).exists());
    let mut found: Vec<String> = gone.map(|path| format!("{PAGE}: {path} does not exist")).collect();
    for part in PARTS {
        for directory in directories(&root.join(part))? {
            let path = format!("{part}/{directory}");
            if !named.iter().any(|name| Path::new(name).starts_with(&path)) {
                found.push(format!("{PAGE}: {path}/ is not named"));
            }
        }
    }
    Ok(found)
}

/// The paths of the tree among the code spans of a page.
fn named(page: &str) -> BTreeSet<&str> {
    let spans = page.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.filter(|span| ROOTS.iter().any(|root| span.starts_with(root)) && !span.contains(['<', ' '])).collect()
}

fn directories(parent: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(parent).with_context(|| format!("cannot read {}", parent.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_code_spans_that_begin_in_the_tree() {
        let page = "`src/role/` and `up`\n| `control/src/api/`, `xtask/src/` | `sync` |\n`cargo xtask up`";
        assert_eq!(named(page), BTreeSet::from(["src/role/", "control/src/api/", "xtask/src/"]));
    }
}
