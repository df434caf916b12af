//! Which of the names that a definition asks for it gets: those that no other definition of its group has. Pure.

use std::collections::HashSet;

use serde_json::Value;

use super::{Definition, Names, conditions};

/// The names and kinds that the definitions of one group have already.
#[derive(Debug, Default)]
pub struct TakenNames {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl TakenNames {
    /// What the definitions of `group` have, and the built-in kinds: their own were accepted once.
    pub fn of<'a>(group: &str, definitions: impl Iterator<Item = &'a Definition>) -> Self {
        let mut taken = Self::default();
        for definition in definitions.filter(|definition| definition.group == group) {
            let Names { plural, singular, short_names, kind, list_kind, .. } = &definition.accepted;
            taken.resources.extend([plural, singular].into_iter().chain(short_names).cloned());
            taken.kinds.extend([kind, list_kind].into_iter().cloned());
        }
        taken
    }
}

/// What came of a naming: the names, and a reason against one of those asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// What the definition gets.
    pub names: Names,
    /// Reason and message.
    pub conflict: Option<(&'static str, String)>,
}

/// Names a definition.
pub fn name(definition: &Definition, taken: &TakenNames) -> Named {
    let (asked, accepted) = (&definition.names, &definition.accepted);
    let mut names = accepted.clone();
    let in_use = |name: &str| format!("{name:?} is already in use");
    let claim = |asked: &String, accepted: &mut String, taken: &HashSet<String>, reason| {
        if asked == accepted || !taken.contains(asked) {
            accepted.clone_from(asked);
            return None;
        }
        Some((reason, in_use(asked)))
    };
    let mut refused = Vec::new();
    refused.extend(claim(&asked.plural, &mut names.plural, &taken.resources, "PluralConflict"));
    refused.extend(claim(&asked.singular, &mut names.singular, &taken.resources, "SingularConflict"));
    let is_taken = |name: &&String| !accepted.short_names.contains(name) && taken.resources.contains(*name);
    let short: Vec<String> = asked.short_names.iter().filter(is_taken).map(|name| in_use(name)).collect();
    match short.as_slice() {
        [] => names.short_names.clone_from(&asked.short_names),
        [one] => refused.push(("ShortNamesConflict", one.clone())),
        more => refused.push(("ShortNamesConflict", format!("[{}]", more.join(", ")))),
    }
    refused.extend(claim(&asked.kind, &mut names.kind, &taken.kinds, "KindConflict"));
    refused.extend(claim(&asked.list_kind, &mut names.list_kind, &taken.kinds, "ListKindConflict"));
    // Of several, Kubernetes tells the last.
    let conflict = refused.pop();
    names.categories.clone_from(&asked.categories);
    Named { names, conflict }
}

/// The definition with its names and what its conditions say of them. Its kinds are served if it is then established.
pub fn with_names(object: &Value, named: &Named) -> Value {
    let mut object = object.clone();
    if !object["status"].is_object() {
        object["status"] = serde_json::json!({});
    }
    object["status"]["acceptedNames"] = named.names.to_json();
    match &named.conflict {
        None => {
            conditions::set(&mut object, "NamesAccepted", "True", "NoConflicts", "no conflicts found");
            if !conditions::is_true(&object, "Established") {
                let message = "the initial names have been accepted";
                conditions::set(&mut object, "Established", "True", "InitialNamesAccepted", message);
            }
        }
        Some((reason, message)) => {
            conditions::set(&mut object, "NamesAccepted", "False", reason, message);
            if conditions::find(&object, "Established").is_none() {
                conditions::set(&mut object, "Established", "False", "NotAccepted", "not all names are accepted");
            }
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str], accepted: Value) -> Value {
        json!({"metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "scope": "Cluster", "versions": [],
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                    "listKind": format!("{kind}List"), "shortNames": short}},
            "status": {"acceptedNames": accepted}})
    }

    #[test]
    fn the_first_definition_gets_the_name_and_the_second_is_told() {
        let accepted = json!({"plural": "as", "singular": "a", "kind": "A", "listKind": "AList", "shortNames": ["x"]});
        let first = Definition::read(&definition("as", "A", &["x"], accepted));
        let object = definition("bs", "A", &["x", "y"], json!({}));
        let second = Definition::read(&object);
        let named = name(&second, &TakenNames::of("example.com", [&first, &second].into_iter()));
        assert_eq!((named.names.plural.as_str(), named.names.kind.as_str()), ("bs", ""));
        assert_eq!(named.conflict, Some(("ListKindConflict", "\"AList\" is already in use".into())));
        let told = with_names(&object, &named);
        assert!(!conditions::is_true(&told, "Established") && !conditions::is_true(&told, "NamesAccepted"));

        let own = name(&first, &TakenNames::of("example.com", [&first].into_iter()));
        assert_eq!((own.conflict, own.names), (None, first.accepted.clone()));
        let free = name(&second, &TakenNames::default());
        let established = with_names(&object, &free);
        assert!(conditions::is_true(&established, "Established"));
        let again = with_names(&established, &free);
        assert_eq!(established, again, "nothing changes the second time");
    }
}
