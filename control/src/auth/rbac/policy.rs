//! All roles and bindings at one moment, indexed by subject. Persistent maps: a clone costs nothing, and a change
//! copies only a path.

use std::{collections::BTreeSet, sync::Arc};

use imbl::{HashMap, OrdMap};
use serde_json::Value;

use super::{
    RESOURCES, Rule,
    subject_index::{self, SubjectIndex},
    subject_indexes::{Subject as IndexedSubject, SubjectIndexes},
};
use crate::{auth::attributes::Attributes, identity::Identity, kinds::rbac::GROUP, store::Object};

/// All roles and bindings at one moment.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    roles: HashMap<RoleKey, Arc<[Rule]>>,
    /// Of ClusterRoleBindings.
    everywhere: Grants,
    /// Of RoleBindings, by namespace.
    by_namespace: HashMap<Arc<str>, Grants>,
    /// Of subjects with many grants.
    indexes: SubjectIndexes,
}

/// Namespace and name; the namespace of a ClusterRole is empty.
pub(super) type RoleKey = (Arc<str>, Arc<str>);

/// Grants by subject, and those of a subject by the name of the binding.
#[derive(Clone, Debug, Default)]
struct Grants {
    users: HashMap<Arc<str>, OfSubject>,
    groups: HashMap<Arc<str>, OfSubject>,
}

type OfSubject = OrdMap<Arc<str>, Arc<Grant>>;

/// A role that a binding gives to one subject.
#[derive(Debug)]
pub(super) struct Grant {
    role: RoleReference,
    /// Where the role is; `None` for a reference that can name none.
    key: Option<RoleKey>,
    /// `ClusterRoleBinding "b" of ClusterRole "r" to Group "g"`
    source: String,
}

/// The role that a binding names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleReference {
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// Its name.
    pub name: Arc<str>,
}

/// Why a binding grants nothing. The words are those of Kubernetes.
#[derive(Debug, thiserror::Error)]
enum RoleError<'r> {
    /// There is no such role.
    #[error("{}.{GROUP} {:?} not found", .0.kind.to_lowercase(), .0.name)]
    NotFound(&'r RoleReference),
    /// It names something else than a role.
    #[error("unsupported role reference kind: {0:?}")]
    Kind(&'r str),
}

/// What the roles of a user say to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RbacDecision {
    /// Allowed, and by which binding.
    Allowed(String),
    /// Not allowed; which bindings could not be followed, if any.
    NoOpinion(String),
}

impl RoleReference {
    /// The `roleRef` of a binding.
    pub fn of(binding: &Value) -> Self {
        let text = |field: &str| binding["roleRef"][field].as_str().unwrap_or_default();
        Self { kind: text("kind").to_owned(), name: text("name").into() }
    }

    /// `clusterroles`, `roles`
    pub fn resource(&self) -> String {
        format!("{}s", self.kind.to_lowercase())
    }

    /// What a binding in `namespace` names by it.
    fn key(&self, namespace: &str) -> Option<RoleKey> {
        let namespace = match self.kind.as_str() {
            "ClusterRole" => "",
            "Role" if !namespace.is_empty() => namespace,
            _ => return None,
        };
        Some((namespace.into(), self.name.clone()))
    }

    fn missing(&self) -> RoleError<'_> {
        match self.kind.as_str() {
            "Role" | "ClusterRole" => RoleError::NotFound(self),
            kind => RoleError::Kind(kind),
        }
    }
}

impl Grant {
    /// Which role it gives; `None` for a reference that can name none.
    pub(super) fn role_key(&self) -> Option<&RoleKey> {
        self.key.as_ref()
    }
}

#[cfg(test)]
impl Grant {
    /// Of this role.
    pub(super) fn of_role(source: String, key: RoleKey) -> Self {
        Self { key: Some(key), ..Self::named(source) }
    }

    /// Of a role that nobody looks for.
    pub(super) fn named(source: String) -> Self {
        Self { role: RoleReference { kind: "Role".to_owned(), name: "role".into() }, key: None, source }
    }

    /// Which binding it is of.
    pub(super) fn source(&self) -> &str {
        &self.source
    }
}

impl Policy {
    /// What the roles of `identity` say. Costs as much as the user and its groups have grants, but for those who have
    /// many.
    pub fn decide(&self, identity: &Identity, attributes: &Attributes<'_>) -> RbacDecision {
        let namespace = match attributes {
            Attributes::Resource(resource) => resource.namespace,
            Attributes::Path { .. } => "",
        };
        let mut errors = BTreeSet::new();
        for (grants, namespace) in self.scopes(namespace) {
            for (is_group, name, grants) in grants.subjects(identity) {
                let found = match self.index(is_group, name, namespace, grants) {
                    Some(index) => {
                        let found = index.first_that_allows(attributes).cloned();
                        if found.is_none() {
                            errors.extend(index.errors().iter().cloned());
                        }
                        found
                    }
                    None => self.first_that_allows(grants, attributes, &mut errors).cloned(),
                };
                if let Some(grant) = found {
                    return RbacDecision::Allowed(format!("RBAC: allowed by {}", grant.source));
                }
            }
        }
        match errors.is_empty() {
            true => RbacDecision::NoOpinion(String::new()),
            false => RbacDecision::NoOpinion(format!("RBAC: {}", aggregate(errors))),
        }
    }

    /// The first of a subject's grants that allows what is asked.
    fn first_that_allows<'a>(
        &self,
        grants: &'a OfSubject,
        attributes: &Attributes<'_>,
        errors: &mut BTreeSet<String>,
    ) -> Option<&'a Arc<Grant>> {
        grants.values().find(|grant| match self.rules_of_grant(grant) {
            Ok(rules) => rules.iter().any(|rule| rule.allows(attributes)),
            Err(error) => {
                errors.insert(error.to_string());
                false
            }
        })
    }

    /// The index of a subject with many grants, unless there is no room for it.
    fn index(&self, is_group: bool, name: &Arc<str>, namespace: &str, grants: &OfSubject) -> Option<Arc<SubjectIndex>> {
        if grants.len() < subject_index::FROM {
            return None;
        }
        let subject = IndexedSubject { is_group, name: name.clone(), namespace: namespace.into() };
        let bytes = || SubjectIndex::bytes_of(grants.values().map(|grant| self.rules_of_grant(grant).ok()));
        self.indexes.get(&subject, bytes, || {
            let mut index = SubjectIndex::default();
            for grant in grants.values() {
                index.add(grant, self.rules_of_grant(grant).map_err(|error| error.to_string()));
            }
            index
        })
    }

    fn rules_of_grant<'a>(&'a self, grant: &'a Grant) -> Result<&'a Arc<[Rule]>, RoleError<'a>> {
        grant.key.as_ref().and_then(|key| self.roles.get(key)).ok_or_else(|| grant.role.missing())
    }

    /// All rules of `identity` in a namespace, those that hold everywhere included, and what kept others away.
    pub fn rules_of(&self, identity: &Identity, namespace: &str) -> (Vec<Rule>, Option<String>) {
        let (mut all, mut errors) = (Vec::new(), BTreeSet::new());
        for (grants, _) in self.scopes(namespace) {
            for grant in grants.subjects(identity).flat_map(|(_, _, grants)| grants.values()) {
                match self.rules_of_grant(grant) {
                    Ok(rules) => all.extend_from_slice(rules),
                    Err(error) => drop(errors.insert(error.to_string())),
                }
            }
        }
        (all, (!errors.is_empty()).then(|| aggregate(errors)))
    }

    /// The rules of a role that a binding in `namespace` names.
    pub fn rules_of_role(&self, role: &RoleReference, namespace: &str) -> Option<&Arc<[Rule]>> {
        self.roles.get(&role.key(namespace)?)
    }

    /// Of how many subjects there are indexes.
    #[cfg(test)]
    pub fn indexes(&self) -> usize {
        self.indexes.subjects().len()
    }

    /// The grants that count in a namespace: those everywhere, and its own.
    fn scopes<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a Grants, &'a str)> {
        let local = self.by_namespace.get(namespace).filter(|_| !namespace.is_empty());
        std::iter::once((&self.everywhere, "")).chain(local.map(|local| (local, namespace)))
    }

    /// Takes in a role or binding of one of [`RESOURCES`].
    pub fn put(&mut self, resource: &str, object: &Object) {
        let Some(value) = parse(resource, object) else { return };
        let [cluster_roles, roles, cluster_bindings, _] = RESOURCES;
        let (namespace, name): RoleKey = (object.header().namespace().into(), object.header().name().into());
        if resource == cluster_roles || resource == roles {
            let key = (namespace, name);
            self.indexes.forget_role(&key);
            self.roles.insert(key, Rule::all_of(&value).into());
            return;
        }
        let kind = if resource == cluster_bindings { "ClusterRoleBinding" } else { "RoleBinding" };
        let role = RoleReference::of(&value);
        let grants = if namespace.is_empty() {
            &mut self.everywhere
        } else {
            self.by_namespace.entry(namespace.clone()).or_default()
        };
        // Kubernetes puts the name before the namespace.
        let shown = if namespace.is_empty() { name.to_string() } else { format!("{name}/{namespace}") };
        let (role_kind, role_name) = (&role.kind, &role.name);
        let key = role.key(&namespace);
        let mut seen = BTreeSet::new();
        for subject in subjects(&value, &namespace) {
            if !seen.insert((subject.is_group, subject.name.clone())) {
                continue;
            }
            let source = format!("{kind} {shown:?} of {role_kind} {role_name:?} to {}", subject.description);
            self.indexes.forget(&subject.indexed(&namespace));
            let by_binding = grants.map(subject.is_group).entry(subject.name).or_default();
            let grant = Grant { role: role.clone(), key: key.clone(), source };
            by_binding.insert(name.clone(), Arc::new(grant));
        }
    }

    /// Forgets a role or binding as it was.
    pub fn remove(&mut self, resource: &str, object: &Object) {
        let [cluster_roles, roles, ..] = RESOURCES;
        let (namespace, name): RoleKey = (object.header().namespace().into(), object.header().name().into());
        if resource == cluster_roles || resource == roles {
            let key = (namespace, name);
            self.indexes.forget_role(&key);
            self.roles.remove(&key);
            return;
        }
        let Some(value) = parse(resource, object) else { return };
        let grants = match namespace.is_empty() {
            true => Some(&mut self.everywhere),
            false => self.by_namespace.get_mut(&namespace),
        };
        let Some(grants) = grants else { return };
        for subject in subjects(&value, &namespace) {
            self.indexes.forget(&subject.indexed(&namespace));
            let map = grants.map(subject.is_group);
            let Some(by_binding) = map.get_mut(&subject.name) else { continue };
            by_binding.remove(&name);
            if by_binding.is_empty() {
                map.remove(&subject.name);
            }
        }
        let is_empty = grants.users.is_empty() && grants.groups.is_empty();
        if is_empty && !namespace.is_empty() {
            self.by_namespace.remove(&namespace);
        }
    }
}

impl Grants {
    fn map(&mut self, of_groups: bool) -> &mut HashMap<Arc<str>, OfSubject> {
        if of_groups { &mut self.groups } else { &mut self.users }
    }

    /// Those of a user and of each of its groups, with whether it is a group, and its name.
    fn subjects<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = (bool, &'a Arc<str>, &'a OfSubject)> {
        let user = self.users.get_key_value(&*identity.name).map(|(name, grants)| (false, name, grants));
        let groups = identity.groups.iter().filter_map(|group| self.groups.get_key_value(group.as_str()));
        user.into_iter().chain(groups.map(|(name, grants)| (true, name, grants)))
    }
}

/// Several errors as Kubernetes joins them.
fn aggregate(errors: BTreeSet<String>) -> String {
    let single = errors.len() == 1;
    let list = errors.into_iter().collect::<Vec<_>>().join(", ");
    if single { list } else { format!("[{list}]") }
}

/// What the API let in can be read back; if it cannot, it grants nothing.
fn parse(resource: &str, object: &Object) -> Option<Value> {
    match serde_json::from_slice(&object.json()) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(%error, resource, name = object.header().name(), "cannot read a role or binding");
            None
        }
    }
}

/// To whom a binding gives its role.
struct Subject {
    is_group: bool,
    name: Arc<str>,
    /// `User "jane"`
    description: String,
}

impl Subject {
    /// By its grants in a namespace, or everywhere.
    fn indexed(&self, namespace: &Arc<str>) -> IndexedSubject {
        IndexedSubject { is_group: self.is_group, name: self.name.clone(), namespace: namespace.clone() }
    }
}

/// The subjects of a binding; those that can be nobody are left out.
fn subjects<'a>(binding: &'a Value, namespace: &'a str) -> impl Iterator<Item = Subject> + 'a {
    binding["subjects"].as_array().into_iter().flatten().filter_map(move |subject| {
        let text = |field: &str| subject[field].as_str().unwrap_or_default();
        let (kind, name) = (text("kind"), text("name"));
        let (is_group, name, shown) = match kind {
            "User" => (false, name.to_owned(), name.to_owned()),
            "Group" => (true, name.to_owned(), name.to_owned()),
            "ServiceAccount" => {
                let of = Some(text("namespace")).filter(|of| !of.is_empty()).unwrap_or(namespace);
                if of.is_empty() {
                    return None;
                }
                (false, format!("system:serviceaccount:{of}:{name}"), format!("{name}/{of}"))
            }
            _ => return None,
        };
        Some(Subject { is_group, name: name.into(), description: format!("{kind} {shown:?}") })
    })
}
