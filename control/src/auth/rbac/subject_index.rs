//! All that one subject may do by its grants in one scope, found by what is asked: for subjects with so many grants
//! that looking through them would cost more than the rest of a request.
//!
//! It decides what looking through them in order decides, by the same grant. It holds for one
//! [`Policy`](super::Policy), and is kept by [`SubjectIndexes`](super::subject_indexes::SubjectIndexes). Whoever may
//! write roles says how large it would be, so that its room is limited: rules that find none are looked through.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Write,
    sync::Arc,
};

use super::{
    ALL, Rule,
    policy::{Grant, RoleKey},
};
use crate::auth::attributes::{Attributes, Resource};

/// From so many grants on an index is made. It costs some microseconds for each grant, once after each change of the
/// subject's roles and bindings; to look through them costs up to one for each grant and request.
pub(super) const FROM: usize = 32;
/// Rules that would have more entries are looked through, so that an index is no larger than the roles in it by much.
const MOST_ENTRIES_OF_A_RULE: usize = 256;
/// Bytes of the entries of one index: some 35,000 entries, which are made in some milliseconds. Chosen, not measured.
const ROOM: usize = 8 << 20;
/// What an entry takes beside its texts, about: its part of two hash tables.
const ENTRY_BYTES: usize = 192;
/// What a grant takes beside its texts, which the policy has, about.
const GRANT_BYTES: usize = 96;
/// What the reason takes why a grant gives nothing, about: the name of its role, and what is said of it.
const ERROR_BYTES: usize = 384;

/// The grants of one subject, by what they allow.
#[derive(Debug)]
pub(super) struct SubjectIndex {
    grants: Vec<Arc<Grant>>,
    /// All roles that they name, those that are not there included.
    roles: HashSet<RoleKey>,
    /// By the text that [`write_key`] makes.
    entries: HashMap<Box<str>, Entry>,
    /// What has no entries: rules that would have too many, and those of paths, by the number of their grants.
    others: Vec<OtherRule>,
    errors: BTreeSet<String>,
    /// Bytes that further entries may take.
    room: usize,
    /// About how many bytes it takes, at most.
    bytes: usize,
}

/// The first grants that allow a verb on a resource.
#[derive(Debug, Default)]
struct Entry {
    /// Whatever the object's name.
    of_all: Option<usize>,
    by_name: HashMap<Box<str>, usize>,
}

/// A rule that is looked through: where it stands in its role.
#[derive(Debug)]
struct OtherRule {
    grant: usize,
    role: Arc<[Rule]>,
    number: usize,
}

impl OtherRule {
    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        self.role.get(self.number).is_some_and(|rule| rule.allows(attributes))
    }
}

impl Default for SubjectIndex {
    fn default() -> Self {
        Self::with_room(ROOM)
    }
}

impl SubjectIndex {
    /// One that says that it takes so many bytes.
    #[cfg(test)]
    pub(super) fn weighing(bytes: usize) -> Self {
        Self { bytes, ..Self::default() }
    }

    fn with_room(room: usize) -> Self {
        Self {
            grants: Vec::new(),
            roles: HashSet::new(),
            entries: HashMap::new(),
            others: Vec::new(),
            errors: BTreeSet::new(),
            room,
            bytes: 0,
        }
    }

    /// Takes in the next grant, with the rules of its role or why there are none.
    pub(super) fn add(&mut self, grant: &Arc<Grant>, rules: Result<&Arc<[Rule]>, String>) {
        // A role that an earlier grant gives already: that one allows whatever this would.
        if grant.role_key().is_some_and(|role| !self.roles.insert(role.clone())) {
            return;
        }
        let number = self.grants.len();
        self.grants.push(grant.clone());
        self.bytes = self.bytes.saturating_add(GRANT_BYTES);
        match rules {
            Ok(rules) => (0..rules.len()).for_each(|rule| self.add_rule(number, rules, rule)),
            Err(error) => {
                self.bytes = self.bytes.saturating_add(error.len());
                self.errors.insert(error);
            }
        }
    }

    fn add_rule(&mut self, grant: usize, role: &Arc<[Rule]>, number: usize) {
        let Some(rule) = role.get(number) else { return };
        let Some(bytes) = entry_bytes(rule).filter(|bytes| *bytes <= self.room) else {
            self.bytes = self.bytes.saturating_add(size_of::<OtherRule>());
            self.others.push(OtherRule { grant, role: role.clone(), number });
            return;
        };
        // Though some entries may be there already: to look for them takes its time, too.
        self.room = self.room.saturating_sub(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
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

    /// About how many bytes it takes, at most.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// About how many bytes an index of these roles would take, at most. Costs a fraction of making it.
    pub(super) fn bytes_of<'r>(roles: impl Iterator<Item = Option<&'r Arc<[Rule]>>>) -> usize {
        let (mut entries, mut others) = (0_usize, 0_usize);
        for rules in roles {
            let error = if rules.is_none() { ERROR_BYTES } else { 0 };
            others = others.saturating_add(GRANT_BYTES).saturating_add(error);
            for rule in rules.into_iter().flat_map(|rules| rules.iter()) {
                others = others.saturating_add(size_of::<OtherRule>());
                entries = entries.saturating_add(entry_bytes(rule).unwrap_or_default());
            }
        }
        entries.min(ROOM).saturating_add(others)
    }

    /// Whether one of the grants names this role.
    pub(super) fn names_role(&self, role: &RoleKey) -> bool {
        self.roles.contains(role)
    }

    /// The first grant that allows what is asked.
    pub(super) fn first_that_allows(&self, attributes: &Attributes<'_>) -> Option<&Arc<Grant>> {
        let entry = match attributes {
            Attributes::Resource(resource) => self.first_entry(resource),
            Attributes::Path { .. } => None,
        };
        let mut others = self.others.iter().take_while(|other| entry.is_none_or(|entry| other.grant < entry));
        let other = others.find(|other| other.allows(attributes)).map(|other| other.grant);
        self.grants.get(other.or(entry)?)
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

/// About how many bytes the entries of a rule take at most; `None` for a rule that is to have none.
fn entry_bytes(rule: &Rule) -> Option<usize> {
    let lists = [&rule.verbs, &rule.api_groups, &rule.resources, &rule.resource_names];
    let entries = lists.iter().map(|list| list.len().max(1)).fold(1, usize::saturating_mul);
    if !rule.non_resource_urls.is_empty() || entries > MOST_ENTRIES_OF_A_RULE {
        return None;
    }
    let longest = lists.iter().map(|list| list.iter().map(String::len).max().unwrap_or_default());
    Some(entries.saturating_mul(longest.fold(ENTRY_BYTES, usize::saturating_add)))
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
            room in prop_oneof![Just(ROOM), 0..4096_usize],
        ) {
            let mut index = SubjectIndex::with_room(room);
            for (number, rules) in grants.iter().enumerate() {
                let grant = Arc::new(Grant::named(number.to_string()));
                index.add(&grant, rules.clone().map(Arc::from).as_ref().map_err(Clone::clone));
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
        index.add(&Arc::new(Grant::named("wide".into())), Ok(&[rule].into()));
        assert!(index.entries.is_empty());
        let asked = |verb| Attributes::Resource(Resource { verb, group: "g7", resource: "r19", ..Resource::default() });
        assert!(index.first_that_allows(&asked("v3")).is_some() && index.first_that_allows(&asked("v20")).is_none());
    }

    #[test]
    fn many_rules_of_many_entries_take_no_more_than_an_index_may() {
        let text = |what: &str, number: usize| format!("{what}{number}");
        let rule = |role: usize, rule: usize| Rule {
            verbs: (0..8).map(|at| text("v", at)).collect(),
            api_groups: vec![text("g", role)],
            resources: (0..8).map(|at| text("r", rule * 8 + at)).collect(),
            resource_names: (0..4).map(|at| text("n", rule * 4 + at)).collect(),
            ..Rule::default()
        };
        let mut index = SubjectIndex::default();
        let roles: Vec<Arc<[Rule]>> = (0..32).map(|role| (0..520).map(|at| rule(role, at)).collect()).collect();
        for (role, rules) in roles.iter().enumerate() {
            index.add(&Arc::new(Grant::named(text("role", role))), Ok(rules));
        }
        let entries: usize = index.entries.values().map(|entry| entry.by_name.len()).sum();
        assert!(entries <= ROOM / ENTRY_BYTES && !index.others.is_empty(), "{entries}");
        assert!(index.bytes() <= ROOM + 32 * GRANT_BYTES + 32 * 520 * size_of::<OtherRule>());
        assert!(index.bytes() <= SubjectIndex::bytes_of(roles.iter().map(Some)));
        let (group, resource, name) = (text("g", 31), text("r", 519 * 8), text("n", 519 * 4));
        let asked = Resource { verb: "v7", group: &group, resource: &resource, name: &name, ..Resource::default() };
        let found = index.first_that_allows(&Attributes::Resource(asked)).map(|grant| grant.source());
        assert_eq!(found, Some("role31"), "it is looked through");
        let other = Attributes::Resource(Resource { name: "other", ..asked });
        assert!(index.first_that_allows(&other).is_none());
    }

    #[test]
    fn a_role_that_is_given_twice_takes_room_once() {
        let rules: Arc<[Rule]> = Arc::new([Rule {
            verbs: vec!["get".into()],
            api_groups: vec![String::new()],
            resources: vec!["pods".into()],
            ..Rule::default()
        }]);
        let mut index = SubjectIndex::default();
        let role: RoleKey = ("a".into(), "reader".into());
        for binding in ["first", "second"] {
            index.add(&Arc::new(Grant::of_role(binding.into(), role.clone())), Ok(&rules));
        }
        let asked = Attributes::Resource(Resource { verb: "get", resource: "pods", ..Resource::default() });
        assert_eq!(index.first_that_allows(&asked).map(|grant| grant.source()), Some("first"));
        assert!(index.grants.len() == 1 && index.names_role(&role));
    }
}
