//! The kinds that are served now. They change while the server runs: a custom resource adds a kind, its removal takes
//! it away.
//!
//! One writer at a time replaces the whole [`Kinds`]; readers hold the snapshot they took, and so see one state
//! throughout a request. Whoever works on all kinds subscribes: garbage collection, namespace deletion, informers. What
//! is derived from all kinds (discovery, OpenAPI) compares [`Kinds::generation`] and is made anew when it is asked for.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Kind, Kinds, Storage};

/// Where the current kinds are found. Cheap to clone; clones share the kinds.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    current: ArcSwap<Kinds>,
    /// Held while the next snapshot is made.
    writing: Mutex<()>,
    generation: watch::Sender<u64>,
}

/// Why a kind cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Another kind is served at its path or has its name.
    #[error("{taken} is already served by {by}")]
    Taken {
        /// `widgets.example.com/v1`
        taken: String,
        /// `apps/v1, Kind=Deployment`
        by: String,
    },
    /// Its objects would be stored as another kind's that is not served: add that one first.
    #[error("cannot store {kind} as {stored}, which is not served")]
    NotStored {
        /// The kind to be added.
        kind: String,
        /// The kind it is stored as.
        stored: String,
    },
}

impl Default for Registry {
    fn default() -> Self {
        Self::new(Kinds::built_in())
    }
}

impl Registry {
    /// Begins with `kinds`.
    pub fn new(kinds: Arc<Kinds>) -> Self {
        let generation = watch::Sender::new(kinds.generation());
        Self { inner: Arc::new(Inner { current: ArcSwap::new(kinds), writing: Mutex::new(()), generation }) }
    }

    /// The kinds as they are now. Does not block.
    pub fn snapshot(&self) -> Arc<Kinds> {
        self.inner.current.load_full()
    }

    /// Tells the generation of the latest snapshot, at each change. A receiver that sees a generation finds a snapshot
    /// at least as new; one that comes late sees only the last of several.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.generation.subscribe()
    }

    /// Serves `kind` from now on, after the other kinds of its group and version.
    pub fn add(&self, kind: Kind) -> Result<Arc<Kind>, AddError> {
        let kind = Arc::new(kind);
        self.change(|kinds| {
            let taken = |taken: String, by: &Kind| AddError::Taken { taken, by: format!("{by:?}") };
            let version = kind.api_version();
            if let Some(other) = kinds.by_path(&kind.group, &kind.version, &kind.plural) {
                return Err(taken(format!("{version}, {}", kind.plural), &other));
            }
            if let Some(other) = kinds.by_gvk(&kind.group, &kind.version, &kind.kind) {
                return Err(taken(format!("{kind:?}"), &other));
            }
            match &kind.storage {
                // Two kinds with one resource would share their data.
                Storage::Stored => {
                    if let Some(other) = kinds.by_resource(&kind.resource()) {
                        return Err(taken(kind.resource(), other));
                    }
                }
                Storage::As(other) if kinds.by_resource(&other.kind.resource()).is_none() => {
                    let (kind, stored) = (format!("{kind:?}"), format!("{:?}", other.kind));
                    return Err(AddError::NotStored { kind, stored });
                }
                Storage::As(_) | Storage::Virtual | Storage::Computed => {}
            }
            let mut all: Vec<Arc<Kind>> = kinds.iter().cloned().collect();
            let at = place(&all, &kind);
            all.insert(at, kind.clone());
            Ok(Some(all))
        })?;
        Ok(kind)
    }

    /// Serves `custom` in place of all kinds that the same definition made before. None of them is served if one of
    /// them cannot be.
    pub fn replace_custom(&self, definition: &str, custom: Vec<Kind>) -> Result<(), AddError> {
        let is_own = |kind: &Kind| kind.custom.as_ref().is_some_and(|custom| *custom.definition == *definition);
        self.change(|kinds| {
            let mut all: Vec<Arc<Kind>> = kinds.iter().filter(|kind| !is_own(kind)).cloned().collect();
            if all.len() == kinds.iter().count() && custom.is_empty() {
                return Ok(None);
            }
            for kind in custom {
                let same = |other: &&Arc<Kind>| other.group == kind.group && other.version == kind.version;
                let clash = |other: &&Arc<Kind>| other.plural == kind.plural || other.kind == kind.kind;
                if let Some(by) = all.iter().filter(same).find(clash) {
                    let taken = format!("{}, {}", kind.api_version(), kind.plural);
                    return Err(AddError::Taken { taken, by: format!("{by:?}") });
                }
                let at = place(&all, &kind);
                all.insert(at, Arc::new(kind));
            }
            Ok(Some(all))
        })
    }

    /// Serves the kind at a path no longer; answers it, if there was one. Its objects stay in the store.
    pub fn remove(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let mut removed = None;
        let changed: Result<(), std::convert::Infallible> = self.change(|kinds| {
            removed = kinds.by_path(group, version, plural);
            let left = |gone: &Arc<Kind>| kinds.iter().filter(|kind| !Arc::ptr_eq(kind, gone)).cloned().collect();
            Ok(removed.as_ref().map(left))
        });
        let Ok(()) = changed;
        removed
    }

    /// Replaces the kinds by what `make` makes of them, if it makes anything.
    fn change<E>(&self, make: impl FnOnce(&Kinds) -> Result<Option<Vec<Arc<Kind>>>, E>) -> Result<(), E> {
        let _writing = self.inner.writing.lock();
        let current = self.inner.current.load();
        if let Some(all) = make(&current)? {
            let generation = current.generation() + 1;
            self.inner.current.store(Arc::new(Kinds::new(all, generation)));
            self.inner.generation.send_replace(generation);
        }
        Ok(())
    }
}

/// Where `kind` stands in discovery's order: after the last of its group and version, else of its group, else of all.
fn place(all: &[Arc<Kind>], kind: &Kind) -> usize {
    let same_version = |other: &Arc<Kind>| other.group == kind.group && other.version == kind.version;
    let same_group = |other: &Arc<Kind>| other.group == kind.group;
    let last = all.iter().rposition(same_version).or_else(|| all.iter().rposition(same_group));
    last.map_or(all.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{BuiltIn, StoredAs};

    fn kind(group: &str, version: &str, kind: &str, plural: &str) -> Kind {
        let own = |text: &str| text.to_owned().into();
        let (group, version, kind, plural) = (own(group), own(version), own(kind), own(plural));
        Kind { group, version, kind, plural, ..Kind::from(&BuiltIn::PLAIN) }
    }

    #[test]
    fn readers_keep_the_snapshot_they_took() {
        let registry = Registry::default();
        let before = registry.snapshot();
        registry.add(kind("a.io", "v1", "A", "as")).unwrap();
        assert!(before.by_path("a.io", "v1", "as").is_none());
        let after = registry.snapshot();
        assert_eq!(after.by_api_version("a.io/v1", "A").unwrap().plural, "as");
        assert_eq!(after.by_resource("as.a.io").unwrap().kind, "A");
        assert!(after.generation() > before.generation());
        assert!(registry.remove("a.io", "v1", "none").is_none());
        assert_eq!(registry.snapshot().generation(), after.generation(), "nothing has changed");
    }

    #[test]
    fn a_kind_cannot_take_the_place_of_another() {
        let registry = Registry::default();
        let errors =
            [kind("", "v1", "Other", "pods"), kind("", "v1", "Pod", "others"), kind("apps", "v2", "D", "deployments")]
                .map(|kind| registry.add(kind).unwrap_err().to_string());
        assert_eq!(
            errors,
            [
                "v1, pods is already served by v1, Kind=Pod",
                "v1, Kind=Pod is already served by v1, Kind=Pod",
                "deployments.apps is already served by apps/v1, Kind=Deployment",
            ]
        );
    }

    #[test]
    fn a_further_version_is_stored_as_the_first() {
        let registry = Registry::default();
        let stored = Arc::new(kind("a.io", "v1", "A", "as"));
        let second = |stored: &Arc<Kind>| {
            let (to_stored, from_stored) = (Arc::new(|_: &mut _| {}), Arc::new(|_: &mut _, _: &Kind| {}));
            let stored_as = StoredAs { kind: stored.clone(), to_stored, from_stored, deprecation: None };
            Kind { storage: Storage::As(Arc::new(stored_as)), ..kind("a.io", "v2", "A", "as") }
        };
        let error = registry.add(second(&stored)).unwrap_err().to_string();
        assert_eq!(error, "cannot store a.io/v2, Kind=A as a.io/v1, Kind=A, which is not served");
        let stored = registry.add(kind("a.io", "v1", "A", "as")).unwrap();
        let second = registry.add(second(&stored)).unwrap();
        assert_eq!(second.stored().unwrap().version, "v1");
        let order: Vec<String> = registry.snapshot().iter().map(|kind| kind.api_version()).collect();
        assert!(order.ends_with(&["a.io/v1".to_owned(), "a.io/v2".to_owned()]), "{order:?}");
    }

    #[test]
    fn many_writers_lose_no_kind() {
        let registry = Registry::default();
        let first = registry.snapshot().iter().count();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let registry = registry.clone();
                scope.spawn(move || registry.add(kind("a.io", "v1", &format!("A{n}"), &format!("a{n}s"))).unwrap());
            }
        });
        assert_eq!(registry.snapshot().iter().count(), first + 8);
        assert_eq!(*registry.subscribe().borrow(), 8);
    }
}
