//! What the server serves, as clients ask for it: `/api`, `/apis`, `/apis/G`, `/apis/G/V`, and the aggregated form of
//! both roots. Groups of extension API servers stand among its own; their `/apis/G/V` is theirs to answer.
//!
//! Everything is prepared once from [`Kinds`] and answered as bytes. Which form a client wants is read from `Accept`
//! here ([`DiscoveryForm::of`]); paths are the router's.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::subresource::Subresource;
use crate::{
    aggregation::{self, RemoteVersion},
    custom::kinds::priority as version_order,
    document::Document,
    kinds::{Kind, Kinds, Storage, group_priority},
    request::accept,
};

/// The prepared answers.
pub struct Discovery {
    /// `/api` and `/apis`, by form.
    roots: [[Document; 3]; 2],
    groups: HashMap<String, Bytes>,
    /// By group, then by version.
    resources: HashMap<String, HashMap<String, Bytes>>,
}

/// The form in which `/api` and `/apis` are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryForm {
    /// `APIVersions`, `APIGroupList`
    Plain,
    /// `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2`, for clients since 1.30.
    AggregatedV2,
    /// The same of `v2beta1`, for clients since 1.26.
    AggregatedV2Beta1,
}

impl DiscoveryForm {
    /// The first form in `accept` that is served.
    pub fn of(accept: &str) -> Self {
        let forms = accept::clauses(accept).into_iter().filter_map(|clause| {
            let asked = ["g", "v", "as"].map(|name| clause.parameter(name));
            match asked {
                _ if !clause.covers("application", "json") => None,
                [Some("apidiscovery.k8s.io"), Some("v2"), Some("APIGroupDiscoveryList")] => Some(Self::AggregatedV2),
                [Some("apidiscovery.k8s.io"), Some("v2beta1"), Some("APIGroupDiscoveryList")] => {
                    Some(Self::AggregatedV2Beta1)
                }
                [None, None, None] => Some(Self::Plain),
                _ => None,
            }
        });
        forms.into_iter().next().unwrap_or(Self::Plain)
    }

    /// The answer's `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "application/json",
            Self::AggregatedV2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::AggregatedV2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

impl Discovery {
    /// `server_address` is where `/api` says the server is: `10.0.0.1:6443`. `remote` is what other servers answer for;
    /// what is served here is not theirs.
    pub fn of(kinds: &Kinds, remote: &[RemoteVersion], server_address: &str) -> Self {
        let groups = groups(kinds, remote);
        let named: Vec<&Group> = groups.iter().filter(|g| !g.name.is_empty()).collect();
        let core: Vec<&Group> = groups.iter().filter(|g| g.name.is_empty()).collect();
        let addresses = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]);
        let versions = json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses});
        let list = json!({"kind": "APIGroupList", "apiVersion": "v1",
            "groups": named.iter().map(|g| g.plain()).collect::<Vec<_>>()});
        Self {
            roots: [
                [Document::new(bytes(&versions)), aggregated(&core, "v2"), aggregated(&core, "v2beta1")],
                [Document::new(bytes(&list)), aggregated(&named, "v2"), aggregated(&named, "v2beta1")],
            ],
            groups: named.iter().map(|g| (g.name.to_owned(), bytes(&g.document()))).collect(),
            resources: groups.iter().map(|g| (g.name.to_owned(), g.resources())).collect(),
        }
    }

    /// `GET /api`
    pub fn core(&self, form: DiscoveryForm) -> Document {
        self.roots[0][form as usize].clone()
    }

    /// `GET /apis`
    pub fn groups(&self, form: DiscoveryForm) -> Document {
        self.roots[1][form as usize].clone()
    }

    /// `GET /apis/{group}`
    pub fn group(&self, group: &str) -> Option<Bytes> {
        self.groups.get(group).cloned()
    }

    /// `GET /api/{version}` (with an empty group), `GET /apis/{group}/{version}`
    pub fn resources(&self, group: &str, version: &str) -> Option<Bytes> {
        self.resources.get(group)?.get(version).cloned()
    }
}

struct Group<'a> {
    name: &'a str,
    /// The preferred version first.
    versions: Vec<(&'a str, Content<'a>)>,
}

/// What a version of a group has.
enum Content<'a> {
    /// Kinds that are served here.
    Here(Vec<&'a Kind>),
    /// What another server serves.
    There(&'a RemoteVersion),
}

/// The groups as kube-apiserver orders them: by priority; within a version, resources by name.
fn groups<'a>(kinds: &'a Kinds, remote: &'a [RemoteVersion]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group> = Vec::new();
    let at = |groups: &mut Vec<Group<'a>>, name: &'a str| {
        groups.iter().position(|group| group.name == name).unwrap_or_else(|| {
            groups.push(Group { name, versions: Vec::new() });
            groups.len() - 1
        })
    };
    for kind in kinds.iter() {
        let at = at(&mut groups, &kind.group);
        let versions = &mut groups[at].versions;
        match versions.iter_mut().find(|(version, _)| *version == kind.version) {
            Some((_, Content::Here(kinds))) => kinds.push(kind),
            _ => versions.push((&kind.version, Content::Here(vec![kind]))),
        }
    }
    for one in remote.iter().filter(|one| !kinds.serves_version(&one.group, &one.version)) {
        let at = at(&mut groups, &one.group);
        groups[at].versions.push((&one.version, Content::There(one)));
    }
    groups.sort_by_cached_key(|group| (group.order(), group.name));
    for group in &mut groups {
        group.sort_versions();
        for (_, content) in &mut group.versions {
            if let Content::Here(kinds) = content {
                kinds.sort_by(|a, b| a.plural.cmp(&b.plural));
            }
        }
    }
    groups
}

impl Group<'_> {
    /// The group of the highest priority comes first. That of a group is the highest of its versions.
    fn order(&self) -> i64 {
        let own = match group_priority::of_group(self.name) {
            (0, _) => -i64::from(aggregation::CUSTOM.group),
            (order, _) => order.into(),
        };
        let of = |content: &Content| match content {
            Content::Here(_) => own,
            Content::There(remote) => remote.group_priority.saturating_neg(),
        };
        self.versions.iter().map(|(_, content)| of(content)).min().unwrap_or(own)
    }

    /// Versions that are all served here have their order already.
    fn sort_versions(&mut self) {
        if self.versions.iter().all(|(_, content)| matches!(content, Content::Here(_))) {
            return;
        }
        let name = self.name;
        let priority = |version: &str, content: &Content| match content {
            Content::There(remote) => remote.version_priority,
            Content::Here(_) => match group_priority::built_in(name, version) {
                Some(priority) => priority.version.into(),
                // Superseded versions of a built-in group have no APIService.
                None if group_priority::of_group(name).0 != 0 => 0,
                None => aggregation::CUSTOM.version.into(),
            },
        };
        self.versions.sort_by_cached_key(|(version, content)| {
            std::cmp::Reverse((
                priority(version, content),
                version_order(version),
                std::cmp::Reverse((*version).to_owned()),
            ))
        });
    }

    /// As an item of an `APIGroupList`.
    fn plain(&self) -> Value {
        let version = |v: &str| json!({"groupVersion": format!("{}/{v}", self.name), "version": v});
        let versions: Vec<Value> = self.versions.iter().map(|(v, _)| version(v)).collect();
        json!({"name": self.name, "versions": versions, "preferredVersion": versions[0]})
    }

    /// The `APIResourceList` of each version that is served here.
    fn resources(&self) -> HashMap<String, Bytes> {
        let list = |(version, content): &(&str, Content)| match content {
            Content::Here(kinds) => Some(((*version).to_owned(), bytes(&resources(self.name, version, kinds)))),
            Content::There(_) => None,
        };
        self.versions.iter().filter_map(list).collect()
    }

    fn document(&self) -> Value {
        let mut group = json!({"kind": "APIGroup", "apiVersion": "v1"});
        for (key, value) in self.plain().as_object().into_iter().flatten() {
            group[key] = value.clone();
        }
        group
    }
}

fn resources(group: &str, version: &str, kinds: &[&Kind]) -> Value {
    let mut list = Vec::new();
    for kind in sorted(kinds) {
        let mut resource = json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": kind.verbs()});
        if !kind.short_names.is_empty() {
            resource["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        if let Some(hash) = storage_version_hash(kind) {
            resource["storageVersionHash"] = hash.into();
        }
        list.push(resource);
        for subresource in subresources(kind) {
            let (g, v, k) = subresource.form_of(kind);
            let mut resource = json!({"name": format!("{}/{}", kind.plural, subresource.segment), "singularName": "",
                "namespaced": kind.namespaced, "kind": k, "verbs": subresource.verbs});
            if (g, v) != (&*kind.group, &*kind.version) {
                resource["group"] = g.into();
                resource["version"] = v.into();
            }
            list.push(resource);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}

fn aggregated(groups: &[&Group], version: &str) -> Document {
    let items: Vec<Value> = groups
        .iter()
        .filter_map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|(v, content)| {
                    let (resources, current) = match content {
                        Content::Here(kinds) => (sorted(kinds).into_iter().map(aggregated_resource).collect(), true),
                        // What is still being asked for may have objects: whoever walks discovery has to wait.
                        Content::There(remote) => {
                            let found = remote.found.as_ref();
                            found.map_or_else(
                                || (Vec::new(), false),
                                |found| ((*found.resources).clone(), found.current),
                            )
                        }
                    };
                    let mut version = json!({"version": v});
                    if !resources.is_empty() {
                        version["resources"] = resources.into();
                    }
                    version["freshness"] = if current { "Current" } else { "Stale" }.into();
                    version
                })
                .collect();
            let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
            (!versions.is_empty()).then(|| json!({"metadata": metadata, "versions": versions}))
        })
        .collect();
    Document::new(bytes(&json!({"kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items})))
}

fn aggregated_resource(kind: &Kind) -> Value {
    let named = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": named((&kind.group, &kind.version, &kind.kind)),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs(),
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    if !kind.subresources.is_empty() {
        let one = |s: &Subresource| {
            json!({"subresource": s.segment,
            "responseKind": named(s.form_of(kind)), "verbs": s.verbs})
        };
        resource["subresources"] = subresources(kind).map(one).collect();
    }
    resource
}

/// By plural, as Kubernetes lists them.
fn sorted<'a>(kinds: &[&'a Kind]) -> Vec<&'a Kind> {
    let mut kinds = kinds.to_vec();
    kinds.sort_by(|a, b| a.plural.cmp(&b.plural));
    kinds
}

/// The kind's subresources, by their path segments.
fn subresources(kind: &Kind) -> impl Iterator<Item = &'static Subresource> {
    let mut found: Vec<_> = kind.subresources.iter().filter_map(|segment| Subresource::of(kind, segment)).collect();
    found.sort_by_key(|subresource| subresource.segment);
    found.into_iter()
}

/// Tells clients which kind the objects are stored as: whoever migrates stored objects compares it.
fn storage_version_hash(kind: &Kind) -> Option<String> {
    let stored = match &kind.storage {
        Storage::Stored => kind,
        Storage::As(stored) => &stored.kind,
        Storage::Virtual | Storage::Computed => return None,
    };
    let digest = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind));
    Some(BASE64_STANDARD.encode(&digest[..8]))
}

fn bytes(document: &Value) -> Bytes {
    Bytes::from(document.to_string())
}

#[cfg(test)]
mod tests;
