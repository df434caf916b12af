//! The layout rules: what stands at the top level, and that each file says what it is and stays small enough to read.

use std::{fs, path::Path};

use anyhow::Context;

use super::sources::Source;
use crate::workspace;

/// What may stand at the top level, beside files and directories whose names begin with a dot.
const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "client",
    "clippy.toml",
    "control",
    "deny.toml",
    "docs",
    "node-agent",
    "proxy-ebpf",
    "rustfmt.toml",
    "serving",
    "src",
    "target",
    "tests",
    "xtask",
];
/// Names that say nothing.
const MEANINGLESS: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc", "types", "manager"];
/// Lines beyond which a file surely holds a second concept.
const TOO_LONG: usize = 450;
/// The width of a line. `rustfmt` keeps it for code alone; a nightly's `wrap_comments` does for comments too.
const COLUMNS: usize = 120;

/// Every entry of the top level that the design does not name.
pub fn unexpected_entries() -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(workspace::root()).context("cannot read the workspace")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()) {
            found.push(format!("layout: {name} does not belong at the top level"));
        }
    }
    Ok(found)
}

/// Every breach of the rules in one file.
pub fn problems(source: &Source) -> Vec<String> {
    let shown = source.shown();
    let mut found = Vec::new();
    if !source.text.starts_with("//!") {
        found.push(format!("layout: {shown} does not open with `//!`: what does it decide?"));
    }
    let stem = source.path.file_stem().unwrap_or_default().to_string_lossy();
    let parent = source.path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    if let Some(name) = [stem, parent].iter().find(|name| MEANINGLESS.contains(&name.as_ref())) {
        found.push(format!("layout: {shown}: `{name}` does not say what the module knows"));
    }
    let lines = source.text.lines().count();
    if lines > TOO_LONG {
        found.push(format!("layout: {shown} has {lines} lines, more than {TOO_LONG}: which concept can move out?"));
    }
    found.extend(wide_lines(source, true));
    found
}

/// Lines that are too wide and that `rustfmt` cannot break: texts, and code in macros.
pub fn remarks(source: &Source) -> Vec<String> {
    wide_lines(source, false)
}

fn wide_lines(source: &Source, comments: bool) -> Vec<String> {
    let lines = source.text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//") == comments);
    let wide = lines.map(|(number, line)| (number + 1, line.chars().count())).filter(|(_, columns)| *columns > COLUMNS);
    let shown = source.shown();
    wide.map(|(number, columns)| format!("layout: {shown}:{number} has {columns} columns, more than {COLUMNS}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: String) -> Vec<String> {
        problems(&Source { path: path.into(), text })
    }

    #[test]
    fn a_file_says_what_it_is_and_fits_the_reader() {
        assert!(found("src/pick.rs", format!("//! Picks.\n// {}\n", "é".repeat(117))).is_empty());
        let long = format!("//! Picks.\n// {}\n", "x".repeat(118));
        assert_eq!(found("src/pick.rs", long), ["layout: src/pick.rs:2 has 121 columns, more than 120"]);
        let text = Source { path: "src/pick.rs".into(), text: format!("//! Picks.\n\"{}\"\n", "x".repeat(119)) };
        assert_eq!(remarks(&text), ["layout: src/pick.rs:2 has 121 columns, more than 120"]);
        assert!(found("src/pick.rs", "use a;\n".into())[0].contains("does not open with"));
        assert!(found("src/utils/pick.rs", "//! Picks.\n".into())[0].contains("`utils`"));
        assert!(found("src/pick.rs", "//!\n".repeat(451))[0].contains("has 451 lines"));
    }

    #[test]
    fn the_top_level_is_as_designed() {
        assert_eq!(unexpected_entries().expect("readable"), Vec::<String>::new());
    }
}
