//! Dependencies that no source file names.

use std::{collections::BTreeSet, path::Path};

use anyhow::Context;
use serde_json::Value;

use super::sources::Source;
use crate::workspace;

/// Dependencies that are there for their features, or that generated code names.
const NEEDED_UNNAMED: &[(&str, &str)] = &[];

/// Every dependency of a member that its sources do not name, and every shared one that no member takes.
pub fn problems(metadata: &Value, sources: &[Source]) -> anyhow::Result<Vec<String>> {
    let manifest = std::fs::read_to_string(workspace::root().join("Cargo.toml")).context("cannot read Cargo.toml")?;
    let mut found = Vec::new();
    let mut taken = BTreeSet::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let directory = directory_of(package);
        let own: Vec<&Source> = sources.iter().filter(|source| belongs(&source.path, &directory)).collect();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let crate_name = dependency["name"].as_str().unwrap_or_default();
            let used_as = dependency["rename"].as_str().unwrap_or(crate_name);
            taken.insert(used_as.to_owned());
            let exempt = NEEDED_UNNAMED.contains(&(name, used_as));
            if !exempt && !own.iter().any(|source| names(&source.text, &used_as.replace('-', "_"))) {
                found.push(format!("dependencies: {name} does not use {used_as}"));
            }
        }
    }
    let unused = shared(&manifest).filter(|name| !taken.contains(*name));
    found.extend(unused.map(|name| format!("dependencies: no member takes {name} of the workspace")));
    Ok(found)
}

/// Where a member's manifest lies, relative to the root; empty for the root package.
fn directory_of(package: &Value) -> String {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
    let directory = manifest.parent().unwrap_or(manifest);
    directory.strip_prefix(workspace::root()).unwrap_or(directory).display().to_string()
}

/// Whether a file is a member's. The root package has `src` and `tests`.
fn belongs(path: &Path, directory: &str) -> bool {
    if directory.is_empty() {
        path.starts_with("src") || path.starts_with("tests")
    } else {
        path.starts_with(directory)
    }
}

/// Whether `text` names the crate: as a path, or in a `use` of the crate alone.
fn names(text: &str, crate_name: &str) -> bool {
    text.match_indices(crate_name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = &text[at + crate_name.len()..];
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '.');
        starts && (after.starts_with("::") || after.starts_with(';') || after.starts_with(" as "))
    })
}

/// Names under `[workspace.dependencies]`.
fn shared(manifest: &str) -> impl Iterator<Item = &str> {
    let lines = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let entries = lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#'));
    entries.filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_crate_is_named_by_a_path_or_a_use_and_not_by_a_longer_word() {
        assert!(names("let x = tar::Builder::new(w);", "tar"));
        assert!(names("use tar;", "tar") && names("#[tokio::main]", "tokio"));
        assert!(!names("let start = 1; a.tar; xtar::y", "tar"));
        assert!(!names("// tar would do", "tar"));
    }

    #[test]
    fn shared_dependencies_are_read_up_to_the_next_table() {
        let manifest = "[workspace.dependencies]\n# why\na = \"1\"\nb-c = { path = \"x\" }\n\n[profile.dev]\nd = 1\n";
        assert_eq!(shared(manifest).collect::<Vec<_>>(), ["a", "b-c"]);
    }

    #[test]
    fn a_dependency_that_no_source_names_is_found() {
        let manifest_path = workspace::root().join("control/Cargo.toml");
        let metadata = json!({"packages": [{"name": "fairlead-control", "manifest_path": manifest_path,
            "dependencies": [{"name": "serde-saphyr", "rename": "serde_yaml"}, {"name": "tar"}]}]});
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let sources = [source("control/src/a.rs", "serde_yaml::from_str"), source("src/b.rs", "tar::Builder")];
        let found = problems(&metadata, &sources).expect("readable");
        assert_eq!(found[0], "dependencies: fairlead-control does not use tar");
        assert!(!found.iter().any(|line| line.contains("not use serde_yaml")));
    }
}
