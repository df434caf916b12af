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

use super::{documents::Document, subresource::Subresource};
use crate::{
    aggregation::{self, RemoteVersion},
    custom::kinds::priority as version_order,
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
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aggregation::Found;

    fn discovery() -> Discovery {
        Discovery::of(&Kinds::built_in(), &[], "10.0.0.1:6443")
    }

    fn read(bytes: Bytes) -> Value {
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn the_form_is_the_first_acceptable_one() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
            application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(DiscoveryForm::of(kubectl), DiscoveryForm::AggregatedV2);
        let protobuf_first = format!("application/vnd.kubernetes.protobuf,{kubectl}");
        assert_eq!(DiscoveryForm::of(&protobuf_first), DiscoveryForm::AggregatedV2);
        assert_eq!(DiscoveryForm::of("application/json"), DiscoveryForm::Plain);
        assert_eq!(DiscoveryForm::of(""), DiscoveryForm::Plain);
    }

    #[test]
    fn the_preferred_version_of_a_group_comes_first() {
        let groups = read(discovery().groups(DiscoveryForm::Plain).bytes);
        let apps = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "apps").unwrap();
        assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
        assert_eq!(apps["versions"].as_array().unwrap().len(), 3);
        assert_eq!(read(discovery().group("apps").unwrap())["kind"], "APIGroup");
    }

    #[test]
    fn groups_and_resources_come_in_the_order_of_kube_apiserver() {
        let groups = read(discovery().groups(DiscoveryForm::Plain).bytes);
        let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().filter_map(|g| g["name"].as_str()).collect();
        let at = |name: &str| names.iter().position(|other| *other == name).unwrap();
        assert_eq!(names[0], "apiregistration.k8s.io");
        let ordered = [
            "apps",
            "authorization.k8s.io",
            "networking.k8s.io",
            "rbac.authorization.k8s.io",
            "storage.k8s.io",
            "admissionregistration.k8s.io",
            "discovery.k8s.io",
            "resource.k8s.io",
            "flowcontrol.apiserver.k8s.io",
        ];
        assert!(ordered.is_sorted_by_key(|name| at(name)), "{names:?}");
        let list = read(discovery().resources("networking.k8s.io", "v1").unwrap());
        let resources: Vec<&str> =
            list["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
        assert!(resources.is_sorted(), "{resources:?}");
    }

    #[test]
    fn a_version_lists_its_resources_and_subresources() {
        let list = read(discovery().resources("apps", "v1").unwrap());
        let names: Vec<&str> =
            list["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
        let expected = [
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ];
        assert_eq!(names, expected);
        assert_eq!(list["resources"][4]["group"], "autoscaling");
        let core = read(discovery().resources("", "v1").unwrap());
        let pods = core["resources"].as_array().unwrap().iter().find(|r| r["name"] == "pods").unwrap();
        assert_eq!(pods["storageVersionHash"], "xPOwRZ+Yhw8=", "as kube-apiserver says it");
        assert!(discovery().resources("", "v1").is_some());
        assert!(discovery().resources("apps", "v2").is_none());
    }

    #[test]
    fn groups_of_other_servers_stand_among_its_own_by_priority() {
        let remote = |group: &str, version: &str, group_priority, version_priority, current: Option<bool>| {
            let resources = Arc::new(vec![json!({"resource": "flunders"})]);
            let (group, version) = (group.to_owned(), version.to_owned());
            let found = current.map(|current| Found { resources, current });
            RemoteVersion { group, version, group_priority, version_priority, found }
        };
        let all = [
            remote("high.io", "v1alpha1", 17_950, 1, Some(true)),
            remote("low.io", "v1beta1", 100, 10, None),
            remote("low.io", "v1", 100, 10, Some(false)),
            remote("low.io", "v2", 5, 1, Some(true)),
            remote("apps", "v1", 20_000, 1_000, Some(true)),
            remote("apps", "v9", 100, 1, Some(true)),
        ];
        let discovery = Discovery::of(&Kinds::built_in(), &all, "10.0.0.1:6443");
        let plain = read(discovery.groups(DiscoveryForm::Plain).bytes);
        let names: Vec<&str> =
            plain["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
        assert_eq!(names[..3], ["apiregistration.k8s.io", "high.io", "apps"]);
        assert_eq!(names.last(), Some(&"low.io"));
        let low = read(discovery.group("low.io").unwrap());
        let versions = |list: &Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|v| v["version"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(versions(&low["versions"]), ["v1", "v1beta1", "v2"]);
        assert_eq!(low["preferredVersion"]["groupVersion"], "low.io/v1");
        let apps = read(discovery.group("apps").unwrap());
        assert_eq!(versions(&apps["versions"])[0], "v1");
        assert_eq!(versions(&apps["versions"]).iter().filter(|version| *version == "v1").count(), 1);
        assert!(discovery.resources("high.io", "v1alpha1").is_none(), "its own server answers");

        let list = read(discovery.groups(DiscoveryForm::AggregatedV2).bytes);
        let group = |name: &str| {
            list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == name).unwrap().clone()
        };
        assert_eq!(group("low.io")["versions"][0]["freshness"], "Stale");
        assert_eq!(versions(&group("low.io")["versions"]), ["v1", "v1beta1", "v2"]);
        let unasked = &group("low.io")["versions"][1];
        assert_eq!((&unasked["freshness"], &unasked["resources"]), (&json!("Stale"), &Value::Null), "nobody knows yet");
        assert_eq!(group("high.io")["versions"][0]["resources"][0]["resource"], "flunders");
        assert_ne!(group("apps")["versions"][0]["resources"][0]["resource"], "flunders");
    }

    #[test]
    fn the_aggregated_form_says_the_same() {
        let list = read(discovery().core(DiscoveryForm::AggregatedV2).bytes);
        assert_eq!(list["apiVersion"], "apidiscovery.k8s.io/v2");
        let pods = list["items"][0]["versions"][0]["resources"].as_array().unwrap();
        let pods = pods.iter().find(|r| r["resource"] == "pods").unwrap();
        assert_eq!(pods["shortNames"], json!(["po"]));
        assert_eq!(pods["scope"], "Namespaced");
        assert_eq!(pods["subresources"][0]["responseKind"]["kind"], "Binding");
    }
}
