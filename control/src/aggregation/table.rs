//! Which server answers for which version of which group, as one snapshot that every request reads; made anew when
//! APIServices change.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::Value;

use super::backend::{Backend, Dialer, RESOURCE};
use crate::{store::Snapshot, webhook::WebhookTarget};

/// The versions of groups that other servers answer for.
#[derive(Clone, Default)]
pub struct Table {
    /// Of the snapshot that it was made from.
    revision: u64,
    /// By group and version.
    backends: BTreeMap<(String, String), Arc<Backend>>,
    /// What each APIService was read as, by name, with the revision that was read.
    read: HashMap<Arc<str>, (u64, Option<Arc<Backend>>)>,
}

impl Table {
    /// The table that `snapshot` says. What has not changed since `self` is not read again.
    pub fn refreshed(&self, snapshot: &Snapshot, dialer: &Dialer) -> Self {
        let mut table = Self { revision: snapshot.revision, ..Self::default() };
        for (key, object) in snapshot.list(RESOURCE, "", None) {
            let before = self.read.get(key);
            let backend = match before {
                Some((revision, backend)) if *revision == object.revision => backend.clone(),
                before => {
                    let before = before.and_then(|(_, backend)| backend.as_deref());
                    match serde_json::from_slice::<Value>(&object.json()) {
                        Ok(value) => Backend::read(&value, before, dialer).map(Arc::new),
                        Err(error) => {
                            tracing::error!(name = &**key, %error, "a stored APIService is damaged");
                            None
                        }
                    }
                }
            };
            if let Some(backend) = &backend {
                table.backends.insert((backend.group.clone(), backend.version.clone()), backend.clone());
            }
            table.read.insert(key.clone(), (object.revision, backend));
        }
        table
    }

    /// The server of a version of a group.
    pub fn get(&self, group: &str, version: &str) -> Option<Arc<Backend>> {
        if self.backends.is_empty() {
            return None;
        }
        self.backends.get(&(group.to_owned(), version.to_owned())).cloned()
    }

    /// Whether it was made from a later snapshot than `snapshot`.
    pub fn is_after(&self, snapshot: &Snapshot) -> bool {
        self.revision > snapshot.revision
    }

    /// The revision of an APIService that was read.
    pub fn revision_of(&self, name: &str) -> Option<u64> {
        self.read.get(name).map(|(revision, _)| *revision)
    }

    /// The server that an APIService names.
    pub fn named(&self, name: &str) -> Option<&Arc<Backend>> {
        self.read.get(name)?.1.as_ref()
    }

    /// All servers, by group and version.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.backends.values()
    }

    /// The servers behind a Service.
    pub fn behind<'a>(&'a self, namespace: &'a str, service: &'a str) -> impl Iterator<Item = &'a Arc<Backend>> {
        self.iter().filter(move |backend| match &backend.target {
            WebhookTarget::Service { namespace: n, name, .. } => n == namespace && name == service,
            WebhookTarget::Host { .. } => false,
        })
    }
}
