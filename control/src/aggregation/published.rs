//! What is known of the APIs of other servers, for discovery and OpenAPI: one writer, many readers, and a number that
//! grows with each change.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::watch;

use crate::document::Document;

/// A version of a group that another server answers for, as discovery shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteVersion {
    /// Never empty.
    pub group: String,
    /// `v1beta1`
    pub version: String,
    /// `spec.groupPriorityMinimum`
    pub group_priority: i64,
    /// `spec.versionPriority`
    pub version_priority: i64,
    /// What the server said; nothing before it was asked for the first time.
    pub found: Option<RemoteResources>,
}

/// What a server said about one version of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteResources {
    /// `APIResourceDiscovery` each.
    pub resources: Arc<Vec<Value>>,
    /// Whether it could be asked the last time.
    pub current: bool,
}

/// The OpenAPI documents of one version of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteSpec {
    /// `apis/GROUP/VERSION`
    pub root: String,
    /// Where the version's document of OpenAPI v3 is.
    pub v3: Option<Version3>,
    /// The part of the server's Swagger document that is about the version.
    pub v2: Option<Arc<Value>>,
}

/// Where a document of OpenAPI v3 comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Version3 {
    /// From the server, which names this URL, hash included.
    Served {
        /// `/openapi/v3/apis/GROUP/VERSION?hash=…`
        url: String,
    },
    /// Made of the Swagger document, for a server that has no other.
    Converted(Document),
}

/// All that is known. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub struct Published {
    inner: Arc<Inner>,
}

struct Inner {
    versions: ArcSwap<Vec<RemoteVersion>>,
    specs: ArcSwap<Vec<RemoteSpec>>,
    changed: watch::Sender<u64>,
    spec_changes: AtomicU64,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            versions: ArcSwap::default(),
            specs: ArcSwap::default(),
            changed: watch::Sender::new(0),
            spec_changes: AtomicU64::new(0),
        }
    }
}

impl Published {
    /// The versions that other servers answer for.
    pub fn versions(&self) -> Arc<Vec<RemoteVersion>> {
        self.inner.versions.load_full()
    }

    /// Grows when [`Published::versions`] change.
    pub fn generation(&self) -> u64 {
        *self.inner.changed.borrow()
    }

    /// Tells [`Published::generation`] at each change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// The OpenAPI documents of other servers.
    pub fn specs(&self) -> Arc<Vec<RemoteSpec>> {
        self.inner.specs.load_full()
    }

    /// Grows when [`Published::specs`] change.
    pub fn spec_generation(&self) -> u64 {
        self.inner.spec_changes.load(Ordering::Acquire)
    }

    /// Says what is known now.
    pub(super) fn publish(&self, versions: Vec<RemoteVersion>, specs: Vec<RemoteSpec>) {
        if **self.inner.versions.load() != versions {
            self.inner.versions.store(Arc::new(versions));
            self.inner.changed.send_modify(|generation| *generation = generation.wrapping_add(1));
        }
        if **self.inner.specs.load() != specs {
            self.inner.specs.store(Arc::new(specs));
            self.inner.spec_changes.fetch_add(1, Ordering::AcqRel);
        }
    }
}
