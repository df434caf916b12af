//! Which objects the words of a command line mean: `pods`, `pod a b`, `pod/a svc/b`, `deploy,svc`, `all`. Pure.

use anyhow::bail;

use super::{ResourceType, Resources};
use crate::failure::Hinted;

/// One resource type, and the names asked for; none means all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub kind: ResourceType,
    pub names: Vec<String>,
}

/// Reads `words` as kubectl does. One selection a type, in the order in which they were named.
pub fn select(resources: &Resources, words: &[String]) -> anyhow::Result<Vec<Selection>> {
    let Some(first) = words.first() else {
        return Err(Hinted::new(
            "you must say which resource is meant",
            "for instance: pods, deployment web, svc/web, all",
        )
        .into());
    };
    if words.iter().any(|word| word.contains('/')) {
        return slashed(resources, words);
    }
    let names = &words[1..];
    let mut selections = Vec::new();
    for word in first.split(',').filter(|word| !word.is_empty()) {
        let members = resources.in_category(word);
        if members.is_empty() {
            selections.push(Selection { kind: resources.resolve(word)?.clone(), names: names.to_vec() });
        } else {
            selections.extend(members.into_iter().map(|kind| Selection { kind: kind.clone(), names: names.to_vec() }));
        }
    }
    Ok(selections)
}

fn slashed(resources: &Resources, words: &[String]) -> anyhow::Result<Vec<Selection>> {
    let mut selections: Vec<Selection> = Vec::new();
    for word in words {
        let Some((kind, name)) = word.split_once('/') else {
            bail!(
                "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. '{}')",
                words.join(" ")
            );
        };
        if name.is_empty() || name.contains('/') {
            bail!("arguments in resource/name form must have a single resource and name, not '{word}'");
        }
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

    fn read(words: &[&str]) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        Ok(select(&served(), &words)?.into_iter().map(|s| (s.kind.plural, s.names)).collect())
    }

    #[test]
    fn all_forms_of_naming_objects_are_understood() {
        let both = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            vec![("pods".to_owned(), names.clone()), ("services".to_owned(), names)]
        };
        assert_eq!(read(&["po,svc"]).expect("list"), both(&[]));
        assert_eq!(read(&["all"]).expect("category"), both(&[]));
        assert_eq!(read(&["pods,svc", "a"]).expect("names"), both(&["a"]));
        assert_eq!(
            read(&["pod/a", "svc/b", "po/c"]).expect("slashes"),
            vec![
                ("pods".to_owned(), vec!["a".to_owned(), "c".to_owned()]),
                ("services".to_owned(), vec!["b".to_owned()])
            ]
        );
    }

    #[test]
    fn mixed_forms_are_refused() {
        assert!(read(&["pod", "svc/b"]).is_err());
        assert!(read(&["pod/"]).is_err());
        assert!(read(&[]).is_err());
    }
}
