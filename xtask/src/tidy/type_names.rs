//! Types of a package that bear the same name though they are different things.
//!
//! Only what other files can name counts: a type that its file keeps to itself is read beside its definition.

use std::collections::BTreeMap;

use super::sources::Source;

/// The packages whose types have names of their own.
const PACKAGES: &[&str] = &[
    "client/src",
    "control/controllers/src",
    "control/kinds/src",
    "control/pki/src",
    "control/src",
    "control/store/src",
    "node-agent/dns/src",
    "node-agent/src",
    "node-agent/world/src",
    "proxy-ebpf/programs",
    "proxy-ebpf/src",
    "serving/src",
    "src",
    "tests/access",
    "tests/bench",
    "tests/cluster",
    "tests/conformance",
    "tests/differential",
    "xtask/src",
];

/// Names that mean different things in one package, because both things have that name where they come from.
const SHARED: &[(&str, &str)] = &[
    // `admission.Attributes` and `authorizer.Attributes` of Kubernetes.
    ("control/src", "Attributes"),
    // CEL has nouns of its own beside those of schemas and kinds.
    ("control/kinds/src", "Definition"),
    ("control/kinds/src", "Kind"),
    ("control/kinds/src", "Quantity"),
    ("control/kinds/src", "Type"),
];

/// Every name that two files of a package define.
pub fn problems(sources: &[Source]) -> Vec<String> {
    PACKAGES.iter().flat_map(|package| problems_of(package, sources)).collect()
}

fn problems_of(package: &str, sources: &[Source]) -> Vec<String> {
    let mut defined: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let of_package = sources.iter().filter(|source| source.path.starts_with(package) && !is_test(&source.shown()));
    for source in of_package {
        for name in public_types(&source.text) {
            defined.entry(name).or_default().push(source.shown());
        }
    }
    let twice = defined.into_iter().filter(|(name, files)| files.len() > 1 && !SHARED.contains(&(package, name)));
    twice.map(|(name, files)| format!("type {name} is defined more than once: {}", files.join(", "))).collect()
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// The types that a file shows to others: those at the beginning of a line, with a visibility.
fn public_types(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.strip_prefix("pub")?;
        let rest = match rest.strip_prefix('(') {
            Some(restricted) => restricted.split_once(')')?.1,
            None => rest,
        };
        let (keyword, rest) = rest.strip_prefix(' ')?.split_once(' ')?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        matches!(keyword, "struct" | "enum" | "trait" | "type" | "union").then_some(&rest[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_name_that_two_files_define_is_found() {
        let sources = [
            source("control/src/a.rs", "/// One.\npub struct Found {\n"),
            source("control/src/b.rs", "pub(super) enum Found<'a> {\n"),
            source("control/src/tests/c.rs", "pub struct Found;\n"),
            source("control/kinds/src/d.rs", "pub trait Found: Send {\n"),
        ];
        let expected = "type Found is defined more than once: control/src/a.rs, control/src/b.rs";
        assert_eq!(problems(&sources), [expected]);
    }

    #[test]
    fn what_a_file_keeps_to_itself_and_what_has_its_name_from_elsewhere_is_left_alone() {
        let sources = [
            source("control/src/a.rs", "struct Inner;\npub struct Attributes;\nmod m {\n    pub struct Nested;\n}"),
            source("control/src/b.rs", "struct Inner;\npub type Attributes = u8;\npub struct Nested;\n"),
        ];
        assert_eq!(problems(&sources), [""; 0]);
    }
}
