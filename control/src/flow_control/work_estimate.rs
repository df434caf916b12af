//! How many seats a request takes: one, but for lists, which take the more the more objects they go through.
//!
//! Source: `list_work_estimator.go` of `k8s.io/apiserver`, by numbers of objects. Kubernetes takes a resource's number
//! as it was counted last; here the store knows it, of all and of a namespace. Of an indexed value no more are counted
//! than the widest list goes through, and of one name the namespaces alone, each of which is looked into: what is asked
//! here is not authorised yet, so it must cost little whoever asks.
//!
//! Writes take one seat and nothing afterwards. Kubernetes adds time for telling watchers of a change, which there each
//! watcher's cache does after the write has ended. Here a change is encoded once for all watchers of a kind, and what a
//! watcher takes of it is bounded where it is sent.

use std::sync::Arc;

use crate::{
    kinds::{Kind, Registry},
    request::{RequestInfo, Verb, path::ResourcePath, query::Version},
    store::{Snapshot, Store},
};

/// Seats of the widest list.
pub const MAX_WIDTH: usize = 10;
/// Objects that a list goes through on one seat.
const OBJECTS_PER_SEAT: usize = 100;

/// Knows how many objects there are.
#[derive(Clone)]
pub struct WorkEstimator {
    store: Arc<dyn Store>,
    kinds: Registry,
}

impl WorkEstimator {
    /// Of the objects of a store.
    pub fn new(store: Arc<dyn Store>, kinds: Registry) -> Self {
        Self { store, kinds }
    }

    /// Seats of a request, at most so many.
    pub fn width(&self, info: &RequestInfo, most: usize) -> usize {
        let (true, Some(path)) = (most > 1 && goes_through_objects(info), info.resource()) else { return 1 };
        // What another server answers for costs little here.
        let served = self.kinds.snapshot().by_path(&path.group, &path.version, &path.resource);
        let Some(kind) = served.as_ref().and_then(Kind::stored) else { return 1 };
        let objects = objects(&self.store.snapshot(), kind, path, info, most.saturating_mul(OBJECTS_PER_SEAT));
        objects.div_ceil(OBJECTS_PER_SEAT).clamp(1, most)
    }
}

/// Lists, and watches that begin with what is there.
fn goes_through_objects(info: &RequestInfo) -> bool {
    let query = &info.query;
    match info.verb {
        Verb::List => true,
        Verb::Watch => {
            query.send_initial_events == Some(true) || matches!(query.resource_version, None | Some(Version::Any))
        }
        _ => false,
    }
}

/// How many objects are gone through; where they have to be counted, up to `most`.
fn objects(snapshot: &Snapshot, kind: &Kind, path: &ResourcePath, info: &RequestInfo, most: usize) -> usize {
    let (resource, fields) = (kind.resource(), &info.query.field_selector);
    let all = snapshot.count(&resource);
    if all <= OBJECTS_PER_SEAT {
        return all;
    }
    if path.name.as_deref().or(fields.name()).is_some() {
        // One of each namespace at the most, and each that has any is looked into.
        let one = path.namespace.is_some() || path.name.is_some();
        return if one { 1 } else { snapshot.count_namespaces(&resource).clamp(1, most) };
    }
    let counted = match kind.indexed.iter().find_map(|index| Some((&**index, fields.exact(index)?))) {
        Some(term) => snapshot.count_by(&resource, term, path.namespace.as_deref(), most),
        None => path.namespace.as_deref().map_or(all, |namespace| snapshot.count_in(&resource, namespace)),
    };
    let selects = !fields.is_empty() || !info.query.label_selector.is_empty();
    match info.query.limit {
        // Objects are gone through until a page is full of those that are selected: it may take all of them.
        Some(limit) if limit > 0 && !selects && info.verb == Verb::List => counted.min(limit),
        _ => counted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api, encode,
        request::tests::info,
        store::{Change, Expect, Key, Write},
    };

    #[tokio::test]
    async fn a_list_takes_a_seat_for_each_hundred_objects_that_it_goes_through() {
        let (dir, kinds) = (tempfile::tempdir().unwrap(), Registry::default());
        let store: Arc<dyn Store> = Arc::new(api::open_store(&dir.path().join("store"), &kinds).unwrap());
        let [kind, secret] =
            ["configmaps", "secrets"].map(|resource| kinds.snapshot().by_path("", "v1", resource).unwrap());
        let writes = (0..450).map(|number| {
            let (namespace, name) = (if number < 250 { "a" } else { "b" }, format!("c{number}"));
            let object =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}});
            let key = Key { resource: "configmaps".into(), name: format!("{namespace}/{name}").into() };
            Write { key, expect: Expect::Absent, change: Change::Put(encode::draft(&kind, &object)) }
        });
        let secrets = (0..150).map(|number| {
            let namespace = format!("n{number}");
            let object =
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace, "name": "s"}});
            let key = Key { resource: "secrets".into(), name: format!("{namespace}/s").into() };
            Write { key, expect: Expect::Absent, change: Change::Put(encode::draft(&secret, &object)) }
        });
        for write in writes.chain(secrets) {
            store.write_one(write).await.unwrap();
        }
        let estimator = WorkEstimator::new(store, kinds);
        let width = |method: &str, uri: &str| estimator.width(&info(method, uri), MAX_WIDTH);
        for (seats, uri) in [
            (5, "/api/v1/configmaps"),
            (3, "/api/v1/namespaces/a/configmaps"),
            (2, "/api/v1/namespaces/b/configmaps"),
            (1, "/api/v1/namespaces/c/configmaps"),
            (1, "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name%3Dc7"),
            (1, "/api/v1/configmaps?limit=50"),
            (5, "/api/v1/configmaps?limit=50&labelSelector=a%3Db"),
            (1, "/api/v1/configmaps?fieldSelector=metadata.name%3Dc7"),
            (2, "/api/v1/secrets?fieldSelector=metadata.name%3Dc7"),
            (1, "/api/v1/namespaces/n7/secrets?fieldSelector=metadata.name%3Dc7"),
            (1, "/api/v1/namespaces?fieldSelector=metadata.name%3Dc7"),
            (5, "/api/v1/configmaps?watch=1"),
            (
                5,
                "/api/v1/configmaps?watch=1&resourceVersion=7&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
            ),
            (1, "/api/v1/configmaps?watch=1&resourceVersion=7"),
            (1, "/api/v1/namespaces/a/configmaps/c7"),
            (1, "/apis/unknown.example.com/v1/things"),
        ] {
            assert_eq!(width("GET", uri), seats, "{uri}");
        }
        assert_eq!(width("POST", "/api/v1/namespaces/a/configmaps"), 1);
        assert_eq!(estimator.width(&info("GET", "/api/v1/configmaps"), 2), 2);
    }
}
