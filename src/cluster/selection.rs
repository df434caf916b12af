//! Which objects the words of a command line mean: `pods`, `pod a b`, `pod/a svc/b`, `deploy,svc`, `all`. Pure.

use anyhow::{bail, ensure};

use super::{ResourceType, Resources, path::check_name};
use crate::hint::ErrorWithHint;

/// One resource type, and the names asked for; none means all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// As the server names it.
    pub kind: ResourceType,
    /// Each can be a segment of a path.
    pub names: Vec<String>,
}

/// Reads `words` as kubectl does. At least one selection, and one per type, in the order in which they were named.
pub fn select(resources: &Resources, words: &[String]) -> anyhow::Result<Vec<Selection>> {
    let unnamed = || {
        ErrorWithHint::new("you must say which resource is meant", "for instance: pods, deployment web, svc/web, all")
            .into()
    };
    let Some(first) = words.first() else { return Err(unnamed()) };
    if words.iter().any(|word| word.contains('/')) {
        return slashed(resources, words);
    }
    let names = &words[1..];
    names.iter().try_for_each(|name| check_name(name))?;
    let mut selections = Vec::new();
    for word in first.split(',').filter(|word| !word.is_empty()) {
        let members = resources.in_category(word);
        if members.is_empty() {
            selections.push(Selection { kind: resources.resolve(word)?.clone(), names: names.to_vec() });
        } else {
            selections.extend(members.into_iter().map(|kind| Selection { kind: kind.clone(), names: names.to_vec() }));
        }
    }
    if selections.is_empty() { Err(unnamed()) } else { Ok(selections) }
}

/// Reads `words` that must mean one object: `deployment web` or `deployment/web`.
pub fn select_one(resources: &Resources, words: &[String]) -> anyhow::Result<(ResourceType, String)> {
    let mut objects = select(resources, words)?.into_iter().map(|selection| (selection.kind, selection.names));
    match (objects.next(), objects.next()) {
        (Some((kind, mut names)), None) if names.len() == 1 => Ok((kind, names.remove(0))),
        _ => bail!("name exactly one object: TYPE NAME or TYPE/NAME"),
    }
}

fn slashed(resources: &Resources, words: &[String]) -> anyhow::Result<Vec<Selection>> {
    let mut selections: Vec<Selection> = Vec::new();
    for word in words {
        let Some((kind, name)) = word.split_once('/') else {
            bail!(
                "there is no need to specify a resource type as a separate argument when passing arguments in \
                  resource/name form (e.g. '{}')",
                words.join(" ")
            );
        };
        ensure!(
            !name.is_empty() && !name.contains('/'),
            "arguments in resource/name form must have a single resource and name, not '{word}'"
        );
        check_name(name)?;
        let kind = resources.resolve(kind)?;
        match selections.iter_mut().find(|selection| selection.kind == *kind) {
            Some(selection) => selection.names.push(name.to_owned()),
            None => selections.push(Selection { kind: kind.clone(), names: vec![name.to_owned()] }),
        }
    }
    Ok(selections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Resources {
        let kind = |plural: &str, singular: &str, short: &str| ResourceType {
            version: "v1".into(),
            plural: plural.into(),
            singular: singular.into(),
            short_names: vec![short.into()],
            categories: vec!["all".into()],
            namespaced: true,
            ..Default::default()
        };
        Resources::of(vec![kind("pods", "pod", "po"), kind("services", "service", "svc")])
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn read(given: &[&str]) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        Ok(select(&served(), &words(given))?.into_iter().map(|s| (s.kind.plural, s.names)).collect())
    }

    #[test]
    fn all_forms_of_naming_objects_are_understood() {
        let both = |names: &[&str]| vec![("pods".to_owned(), words(names)), ("services".to_owned(), words(names))];
        assert_eq!(read(&["po,svc"]).expect("list"), both(&[]));
        assert_eq!(read(&["all"]).expect("category"), both(&[]));
        assert_eq!(read(&["pods,svc", "a"]).expect("names"), both(&["a"]));
        assert_eq!(
            read(&["pod/a", "svc/b", "po/c"]).expect("slashes"),
            vec![("pods".to_owned(), words(&["a", "c"])), ("services".to_owned(), words(&["b"]))]
        );
    }

    #[test]
    fn mixed_forms_are_refused() {
        assert!(read(&["pod", "svc/b"]).is_err());
        assert!(read(&["pod/"]).is_err());
        assert!(read(&[]).is_err());
        assert!(read(&[","]).is_err());
    }

    #[test]
    fn an_empty_name_is_refused_as_by_kubectl() {
        for given in [&["pod", ""][..], &["pod", "a", ""], &["pods,svc", ""]] {
            assert_eq!(read(given).expect_err("empty").to_string(), "resource name may not be empty", "{given:?}");
        }
        assert!(read(&["pod", ".."]).is_err() && read(&["pod/.."]).is_err());
    }

    #[test]
    fn one_object_is_one_type_and_one_name() {
        let one = |given: &[&str]| select_one(&served(), &words(given)).map(|(kind, name)| (kind.plural, name));
        assert_eq!(one(&["po", "a"]).expect("one"), ("pods".to_owned(), "a".to_owned()));
        assert_eq!(one(&["svc/b"]).expect("one"), ("services".to_owned(), "b".to_owned()));
        for several in [&["po"][..], &["po,svc", "a"], &["po", "a", "b"], &["po/a", "svc/b"], &[","]] {
            assert!(one(several).is_err(), "{several:?}");
        }
    }
}
