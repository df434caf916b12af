//! Modules of a package that need one another in a circle: neither can be read, tested or moved without the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path},
};

use super::sources::Source;

/// The packages whose top modules must have an order. Not `control/kinds`: what a kind is, its schema and its CEL rules
/// are written in terms of one another.
const ORDERED: &[&str] = &[
    "client/src",
    "control/controllers/src",
    "control/pki/src",
    "control/src",
    "control/store/src",
    "node-agent/dns/src",
    "node-agent/serving/src",
    "node-agent/src",
    "node-agent/world/src",
    "src",
];

/// The top modules that a top module uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// Every use that is part of a circle.
pub fn problems(sources: &[Source]) -> Vec<String> {
    ORDERED.iter().flat_map(|package| problems_of(package, sources)).collect()
}

fn problems_of(package: &str, sources: &[Source]) -> Vec<String> {
    let mut uses = Uses::new();
    for source in sources {
        let Some(module) = top_module(package, &source.path) else { continue };
        uses.entry(module).or_default().extend(used_modules(&source.text));
    }
    let known: BTreeSet<String> = uses.keys().cloned().collect();
    for (module, used) in &mut uses {
        used.retain(|other| other != module && known.contains(other));
    }
    let in_circle = uses.iter().flat_map(|(module, used)| used.iter().map(move |other| (module, other)));
    in_circle
        .filter(|(module, other)| reachable(&uses, other).contains(*module))
        .map(|(module, other)| format!("{package}: {module} uses {other}, which uses {module} in a circle"))
        .collect()
}

/// The module right below the package that a file belongs to; `None` for other packages, for the root and for tests.
fn top_module(package: &str, path: &Path) -> Option<String> {
    let below = path.strip_prefix(package).ok()?;
    let is_test = |part: &str| part == "tests" || part.ends_with("tests.rs");
    let parts: Option<Vec<&str>> = below
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let parts = parts?;
    let first = parts.first()?.trim_end_matches(".rs");
    let outside = matches!(first, "lib" | "main") || parts.iter().any(|part| is_test(part));
    (!outside).then(|| first.to_owned())
}

/// The top modules that a file names by `crate::…`, those in its tests and comments left out.
fn used_modules(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let tests = code.windows(2).position(|two| two[0].trim() == "#[cfg(test)]" && two[1].ends_with('{'));
    let code = code[..tests.unwrap_or(code.len())].join("\n");
    code.split("crate::").skip(1).flat_map(first_words).collect()
}

/// Of `a::b`, `a`; of `{a::b, c::{d, e}}`, `a` and `c`.
fn first_words(path: &str) -> Vec<String> {
    let word = |text: &str| -> String { text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect() };
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut found, mut depth, mut begins) = (Vec::new(), 0_usize, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth = depth.saturating_add(1),
            '}' if depth == 0 => break,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => begins = true,
            c if begins && !c.is_whitespace() => {
                found.push(word(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    found
}

fn reachable(uses: &Uses, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(module) = open.pop() {
        for other in uses.get(&module).into_iter().flatten() {
            if found.insert(other.clone()) {
                open.push(other.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.to_owned() }
    }

    #[test]
    fn a_circle_is_told_from_each_of_its_modules() {
        let sources = [
            source("control/src/a/mod.rs", "use crate::{\n    c::{X, Y},\n    b::Z,\n};\n"),
            source("control/src/b.rs", "fn f() { crate::c::g() }\n"),
            source("control/src/c.rs", "use crate::a::deep::Thing;\n"),
            source("control/src/d.rs", "use crate::a;\n"),
        ];
        assert_eq!(
            problems(&sources),
            [
                "control/src: a uses b, which uses a in a circle",
                "control/src: a uses c, which uses a in a circle",
                "control/src: b uses c, which uses b in a circle",
                "control/src: c uses a, which uses c in a circle",
            ]
        );
    }

    #[test]
    fn tests_comments_and_other_packages_make_no_circle() {
        let sources = [
            source("control/src/a.rs", "use crate::b;\n// crate::c\n"),
            source("control/src/b.rs", "//! crate::a\nfn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n"),
            source("control/src/b/tests.rs", "use crate::a;\n"),
            source("node-agent/src/b.rs", "use crate::a;\n"),
        ];
        assert_eq!(problems(&sources), Vec::<String>::new());
    }
}
