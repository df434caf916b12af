//! Every kind that clients can name, served here or by an extension API server, and the resource that it is: a
//! `RESTMapper` of Kubernetes.

use std::sync::Arc;

use crate::{
    aggregation::Published,
    kinds::{Kind, Registry, reading::text},
};

/// Where kinds are looked up. Cheap to clone.
#[derive(Clone)]
pub struct ServedKinds {
    /// The kinds of this server, custom ones included.
    pub here: Registry,
    /// What extension API servers said that they serve.
    pub elsewhere: Published,
}

/// A resource: where the objects of a kind are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedResource {
    /// API group; empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// `pods`
    pub plural: String,
    /// Whether each object belongs to a namespace.
    pub namespaced: bool,
}

impl ServedKinds {
    /// All resources whose objects are of this kind. As for Kubernetes, a kind's name in lower case names it, too.
    pub fn resources_of(&self, group: &str, version: &str, kind: &str) -> Vec<MappedResource> {
        let is_named = |known: &str| known == kind || known.to_lowercase() == kind;
        let kinds = self.here.snapshot();
        let of = |found: &Kind| MappedResource {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: found.plural.to_string(),
            namespaced: found.namespaced,
        };
        let is_meant = |found: &&Arc<Kind>| found.group == group && found.version == version && is_named(&found.kind);
        let mut found: Vec<MappedResource> = kinds.iter().filter(is_meant).map(|found| of(found)).collect();
        for remote in self.elsewhere.versions().iter() {
            if remote.group != group || remote.version != version {
                continue;
            }
            let resources = remote.found.iter().flat_map(|found| found.resources.iter());
            for resource in resources.filter(|resource| is_named(text(&resource["responseKind"], "kind"))) {
                found.push(MappedResource {
                    group: group.to_owned(),
                    version: version.to_owned(),
                    plural: text(resource, "resource").to_owned(),
                    namespaced: text(resource, "scope") == "Namespaced",
                });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::api_version::group_and_version;

    #[test]
    fn a_kind_is_found_by_its_group_version_and_name() {
        let kinds = ServedKinds { here: Registry::default(), elsewhere: Published::default() };
        let of = |api_version: &str, kind: &str| {
            let (group, version) = group_and_version(api_version);
            let found = kinds.resources_of(group, version, kind);
            found.into_iter().map(|found| format!("{} {}", found.plural, found.namespaced)).collect::<Vec<_>>()
        };
        assert_eq!(of("v1", "Pod"), ["pods true"]);
        assert_eq!(of("v1", "pod"), ["pods true"]);
        assert_eq!(of("v1", "Node"), ["nodes false"]);
        assert_eq!(of("apps/v1", "ReplicaSet"), ["replicasets true"]);
        assert_eq!(of("extensions/v1beta1", "Deployment"), ["deployments true"], "superseded versions are served");
        for (api_version, kind) in [("apps/v2", "ReplicaSet"), ("v1", "ReplicaSet"), ("v1", "POD"), ("v1", "PodList")] {
            assert_eq!(of(api_version, kind), [""; 0], "{api_version} {kind}");
        }
    }
}
