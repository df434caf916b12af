//! All that one subject may do by its grants in one scope, found by what is asked: for subjects with so many grants that
//! looking through them would cost more than the rest of a request.
//!
//! It decides what looking through them in order decides, by the same grant. It holds for one [`Policy`](super::Policy)
//! and is made when it is first needed.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{ALL, Rule, policy::Grant};
use crate::auth::attributes::{Attributes, Resource};

/// From so many grants on an index is made. It costs some microseconds for each grant, once after each change of roles
/// and bindings; to look through them costs up to one for each grant and request.
pub(super) const FROM: usize = 32;
/// Rules that would have more entries are looked through, so that an index is no larger than the roles in it by much.
const MOST_ENTRIES_OF_A_RULE: usize = 256;
/// Indexes of one policy; beyond them all are made anew.
const MOST: usize = 1024;

/// The indexes of one policy. A clone has none: a policy is cloned to be changed.
#[derive(Debug, Default)]
pub(super) struct SubjectIndexes(Mutex<HashMap<Subject, Arc<SubjectIndex>>>);

/// Whose grants, and where: an empty namespace stands for ClusterRoleBindings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub(super) is_group: bool,
    pub(super) name: Arc<str>,
    pub(super) namespace: Arc<str>,
}

/// The grants of one subject, by what they allow.
#[derive(Debug, Default)]
pub(super) struct SubjectIndex {
    grants: Vec<Arc<Grant>>,
    /// By the text that [`write_key`] makes.
    entries: HashMap<Box<str>, Entry>,
    /// What has no entries: rules that would have too many, and those of paths, with their grants.
    others: Vec<(usize, Rule)>,
    errors: BTreeSet<String>,
}

/// The first grants that allow a verb on a resource.
#[derive(Debug, Default)]
struct Entry {
    /// Whatever the object's name.
    of_all: Option<usize>,
    by_name: HashMap<Box<str>, usize>,
}

impl Clone for SubjectIndexes {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl SubjectIndexes {
    /// The index of a subject; made by `make` where there is none.
    pub(super) fn get(&self, subject: Subject, make: impl FnOnce() -> SubjectIndex) -> Arc<SubjectIndex> {
        if let Some(found) = self.0.lock().get(&subject) {
            return found.clone();
        }
        // Not under the lock: others decide meanwhile. Two that make the same make it twice.
        let made = Arc::new(make());
        let mut all = self.0.lock();
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(subject, made.clone());
        made
    }

    /// Forgets all of them: the policy changes.
    pub(super) fn clear(&mut self) {
        self.0.get_mut().clear();
    }
}

impl SubjectIndex {
    /// Takes in the next grant, with the rules of its role or why there are none.
    pub(super) fn add(&mut self, grant: &Arc<Grant>, rules: Result<&[Rule], String>) {
        let number = self.grants.len();
        self.grants.push(grant.clone());
        match rules {
            Ok(rules) => rules.iter().for_each(|rule| self.add_rule(number, rule)),
            Err(error) => drop(self.errors.insert(error)),
        }
    }

    fn add_rule(&mut self, grant: usize, rule: &Rule) {
        let lists = [&rule.verbs, &rule.api_groups, &rule.resources, &rule.resource_names];
        let entries = lists.iter().map(|list| list.len().max(1)).fold(1, usize::saturating_mul);
        if !rule.non_resource_urls.is_empty() || entries > MOST_ENTRIES_OF_A_RULE {
            self.others.push((grant, rule.clone()));
            return;
        }
        let mut key = String::new();
        for verb in &rule.verbs {
            for group in &rule.api_groups {
                for resource in &rule.resources {
                    write_key(&mut key, verb, group, &[resource]);
                    let entry = match self.entries.get_mut(key.as_str()) {
                        Some(entry) => entry,
                        None => self.entries.entry(key.as_str().into()).or_default(),
                    };
                    if rule.resource_names.is_empty() {
                        entry.of_all.get_or_insert(grant);
                    }
                    for name in &rule.resource_names {
                        entry.by_name.entry(name.as_str().into()).or_insert(grant);
                    }
                }
            }
        }
    }

    /// The first grant that allows what is asked.
    pub(super) fn first_that_allows(&self, attributes: &Attributes<'_>) -> Option<&Arc<Grant>> {
        let entry = match attributes {
            Attributes::Resource(resource) => self.first_entry(resource),
            Attributes::Path { .. } => None,
        };
        let other = self.others.iter().find(|(_, rule)| rule.allows(attributes)).map(|(grant, _)| *grant);
        self.grants.get(entry.into_iter().chain(other).min()?)
    }

    fn first_entry(&self, r: &Resource<'_>) -> Option<usize> {
        let mut key = String::with_capacity(64);
        let mut first: Option<usize> = None;
        for verb in [r.verb, ALL] {
            for group in [r.group, ALL] {
                // As `Rule::allows` reads them: a rule of all resources is one of all their subresources, and what
                // stands before the first slash is the resource.
                let written: [&[&str]; 3] = match r.subresource {
                    "" => [&[r.resource], &[ALL], &[]],
                    subresource if r.resource.contains('/') => [&[], &[ALL, "/", subresource], &[ALL]],
                    subresource => [&[r.resource, "/", subresource], &[ALL, "/", subresource], &[ALL]],
                };
                for resource in written.into_iter().filter(|parts| !parts.is_empty()) {
                    write_key(&mut key, verb, group, resource);
                    let Some(entry) = self.entries.get(key.as_str()) else { continue };
                    let found = entry.of_all.into_iter().chain(entry.by_name.get(r.name).copied()).min();
                    first = first.into_iter().chain(found).min();
                }
            }
        }
        first
    }

    /// Why some grants give nothing.
    pub(super) fn errors(&self) -> &BTreeSet<String> {
        &self.errors
    }
}

/// A text for a verb on a resource of a group: with their lengths, so that no two are the same.
fn write_key(key: &mut String, verb: &str, group: &str, resource: &[&str]) {
    key.clear();
    write!(key, "{}:{}:{verb}{group}", verb.len(), group.len()).expect("writing to a String");
    resource.iter().for_each(|part| key.push_str(part));
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn list(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
        vec(select(of).prop_map(str::to_owned), 0..3)
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let resources = list(&["pods", "pods/log", "*", "*/log", "a/b/c", "deployments"]);
        let parts = (list(&["get", "list", "*"]), list(&["", "apps", "*"]), resources, list(&["x", "y"]));
        (parts, list(&["/healthz", "/api/*", "*"])).prop_map(
            |((verbs, api_groups, resources, resource_names), non_resource_urls)| Rule {
                verbs,
                api_groups,
                resources,
                resource_names,
                non_resource_urls,
            },
        )
    }

    fn attributes() -> impl Strategy<Value = Attributes<'static>> {
        let verb = select(&["get", "list", "*"]);
        let resource = select(&["pods", "deployments", "*", "a/b", "pods/log"]);
        let parts =
            (select(&["", "apps", "batch"]), resource, select(&["", "log", "c", "b/c"]), select(&["", "x", "y"]));
        prop_oneof![
            4 => (verb, parts).prop_map(|(verb, (group, resource, subresource, name))| Attributes::Resource(Resource {
                verb, group, resource, subresource, name, ..Resource::default()
            })),
            1 => select(&["/healthz", "/api/v1", "/x"]).prop_map(|path| Attributes::Path { verb: "get".to_owned(), path }),
        ]
    }

    proptest! {
        #[test]
        fn it_decides_what_looking_through_the_grants_decides(
            grants in vec(prop_oneof![6 => vec(rule(), 0..4).prop_map(Ok), 1 => Just(Err("gone".to_owned()))], 0..8),
            asked in vec(attributes(), 1..20),
        ) {
            let mut index = SubjectIndex::default();
            for (number, rules) in grants.iter().enumerate() {
                let grant = Arc::new(Grant::named(number.to_string()));
                index.add(&grant, rules.as_deref().map_err(Clone::clone));
            }
            for attributes in &asked {
                let first = grants.iter().position(|rules| {
                    rules.as_ref().is_ok_and(|rules| rules.iter().any(|rule| rule.allows(attributes)))
                });
                let found = index.first_that_allows(attributes).map(|grant| grant.source().to_owned());
                prop_assert_eq!(found, first.map(|number| number.to_string()), "{:?}", attributes);
            }
            prop_assert_eq!(index.errors().len(), usize::from(grants.iter().any(Result::is_err)));
        }
    }

    #[test]
    fn a_rule_of_many_entries_is_looked_through() {
        let many = |what: &str| (0..20).map(|number| format!("{what}{number}")).collect::<Vec<_>>();
        let rule = Rule { verbs: many("v"), api_groups: many("g"), resources: many("r"), ..Rule::default() };
        let mut index = SubjectIndex::default();
        index.add(&Arc::new(Grant::named("wide".into())), Ok(&[rule]));
        assert!(index.entries.is_empty());
        let asked = |verb| Attributes::Resource(Resource { verb, group: "g7", resource: "r19", ..Resource::default() });
        assert!(index.first_that_allows(&asked("v3")).is_some() && index.first_that_allows(&asked("v20")).is_none());
    }
}
