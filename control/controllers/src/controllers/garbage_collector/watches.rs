//! The collector's watches: one over the metadata of each served kind, started and stopped as kinds are added and
//! removed.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use fairlead_client::metadata_events;
use kube::core::{DynamicObject, PartialObjectMeta};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Collector, KindName, OwnedObject, Served};
use crate::engine::watch::{View, everything, follow};

/// What one watch keeps up to date: the objects of one kind in the graph.
struct KindView<'c> {
    collector: &'c Collector,
    kind: KindName,
}

impl Collector {
    /// Watches all kinds until `stop`. Returns early if one of the watches ends, so that its supervisor starts all
    /// again.
    pub(super) async fn watch_all(self: Arc<Self>, stop: CancellationToken) {
        let mut kinds = self.kinds.clone();
        let mut running: BTreeMap<KindName, CancellationToken> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            kinds.mark_unchanged();
            let served: BTreeMap<KindName, Served> =
                self.collected().into_iter().flatten().map(|kind| (KindName::from(kind.name()), kind)).collect();
            let ceased: Vec<KindName> = running.keys().filter(|name| !served.contains_key(*name)).cloned().collect();
            for name in ceased {
                if let Some(token) = running.remove(&name) {
                    token.cancel();
                }
                self.forget_kind(&name);
            }
            for (name, kind) in served {
                if !running.contains_key(&name) {
                    let token = stop.child_token();
                    running.insert(name.clone(), token.clone());
                    tasks.spawn(self.clone().watch_kind(name, kind, token));
                }
            }
            tokio::select! {
                _ = stop.cancelled() => return,
                changed = kinds.changed() => if changed.is_err() { return },
                Some(ended) = tasks.join_next() => match ended {
                    // A kind that is no longer served.
                    Ok(Some(name)) if !running.contains_key(&name) => {}
                    Ok(_) => return,
                    Err(error) => return tracing::error!(%error, "a metadata watch stopped unexpectedly"),
                },
            }
        }
    }

    async fn watch_kind(self: Arc<Self>, kind: KindName, served: Served, stop: CancellationToken) -> Option<KindName> {
        let events = metadata_events(self.client.clone(), &served.resource, everything());
        let view = KindView { collector: &self, kind: kind.clone() };
        follow(&view, events, &stop).await;
        Some(kind)
    }

    /// Drops what is known of a kind that is no longer served.
    fn forget_kind(&self, kind: &KindName) {
        let objects = self.graph.lock().not_among(kind, &HashSet::new());
        objects.iter().for_each(|uid| self.forget(uid));
        self.listed.send_modify(|listed: &mut BTreeSet<KindName>| {
            listed.remove(kind);
        });
    }
}

impl View<PartialObjectMeta<DynamicObject>> for KindView<'_> {
    fn apply(&self, object: PartialObjectMeta<DynamicObject>) {
        self.collector.observe(OwnedObject::read(self.kind.clone(), object.metadata));
    }

    fn delete(&self, object: &PartialObjectMeta<DynamicObject>) {
        self.collector.forget(object.metadata.uid.as_deref().unwrap_or_default());
    }

    fn listed(&self, uids: &HashSet<String>) {
        let gone = self.collector.graph.lock().not_among(&self.kind, uids);
        gone.iter().for_each(|uid| self.collector.forget(uid));
        self.collector.listed.send_if_modified(|listed| listed.insert(self.kind.clone()));
    }
}
