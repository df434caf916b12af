//! All served kinds at one moment, with the ways to find one. Never changed: the [`Registry`](super::Registry) replaces
//! it.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use super::{Kind, Storage, api_version::group_and_version, built_in};

/// All served kinds at one moment.
#[derive(Debug)]
pub struct Kinds {
    /// The built-in ones first; within a group the preferred version first.
    all: Vec<Arc<Kind>>,
    /// Sorted by group, version and plural.
    by_path: Vec<Arc<Kind>>,
    /// Sorted by group, version and kind.
    by_gvk: Vec<Arc<Kind>>,
    /// The kinds with data of their own, by resource: `deployments.apps`.
    by_resource: HashMap<String, Arc<Kind>>,
    generation: u64,
}

impl Kinds {
    /// The kinds of this program.
    pub fn built_in() -> Arc<Kinds> {
        static BUILT_IN: LazyLock<Arc<Kinds>> = LazyLock::new(|| {
            Arc::new(Kinds::new(built_in::TABLE.iter().map(|kind| Arc::new(Kind::from(*kind))).collect(), 0))
        });
        BUILT_IN.clone()
    }

    /// `generation` is larger than that of every earlier snapshot of the same registry.
    pub(super) fn new(all: Vec<Arc<Kind>>, generation: u64) -> Self {
        let mut by_path = all.clone();
        by_path.sort_by(|a, b| path(a).cmp(&path(b)));
        let mut by_gvk = all.clone();
        by_gvk.sort_by(|a, b| gvk(a).cmp(&gvk(b)));
        let stored = all.iter().filter(|kind| matches!(kind.storage, Storage::Stored));
        let mut by_resource: HashMap<String, Arc<Kind>> = stored.map(|kind| (kind.resource(), kind.clone())).collect();
        // A custom kind may be stored in a version that is not served.
        for kind in all.iter().filter(|kind| kind.custom.is_some()) {
            if let Storage::As(other) = &kind.storage {
                by_resource.entry(kind.resource()).or_insert_with(|| other.kind.clone());
            }
        }
        Self { all, by_path, by_gvk, by_resource, generation }
    }

    /// Counts the changes of the registry before this snapshot.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Every kind; within a group the preferred version first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.all.iter()
    }

    /// The kinds that have data of their own in the store: each object belongs to exactly one of these.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.iter().filter(|kind| matches!(kind.storage, Storage::Stored))
    }

    /// Whether any kind of this group and version is served.
    pub fn serves_version(&self, group: &str, version: &str) -> bool {
        let at = self.by_path.partition_point(|kind| (&*kind.group, &*kind.version) < (group, version));
        self.by_path.get(at).is_some_and(|kind| kind.group == group && kind.version == version)
    }

    /// `("apps", "v1", "deployments")`
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        find(&self.by_path, path, (group, version, plural))
    }

    /// `("apps", "v1", "Deployment")`
    pub fn by_gvk(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Kind>> {
        find(&self.by_gvk, gvk, (group, version, kind))
    }

    /// `("apps/v1", "Deployment")`, as an object or an owner reference says it.
    pub fn by_api_version(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        let (group, version) = group_and_version(api_version);
        self.by_gvk(group, version, kind)
    }

    /// The kind that has its own data under a resource of the store: `deployments.apps`.
    pub fn by_resource(&self, resource: &str) -> Option<&Arc<Kind>> {
        self.by_resource.get(resource)
    }
}

type Name<'a> = (&'a str, &'a str, &'a str);

fn path(kind: &Kind) -> Name<'_> {
    (&kind.group, &kind.version, &kind.plural)
}

fn gvk(kind: &Kind) -> Name<'_> {
    (&kind.group, &kind.version, &kind.kind)
}

fn find(sorted: &[Arc<Kind>], name: fn(&Kind) -> Name<'_>, wanted: Name<'_>) -> Option<Arc<Kind>> {
    let at = sorted.binary_search_by(|kind| name(kind).cmp(&wanted)).ok()?;
    sorted.get(at).cloned()
}
