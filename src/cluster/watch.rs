//! Follows objects as they change, on kube's `watcher`: a stream that breaks off is resumed where it ended, and a
//! revision that the server no longer has leads to a new list, of which only the differences are reported.
//!
//! An error is final where another try would end the same way: a refusal by the server, or no answer to the very first
//! list.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
};

use futures::{Stream, StreamExt};
use kube::{
    Api,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::Value;

use super::{
    ApiError, Cluster, ResourceType,
    frame::Frame,
    path::{check_name, field_equals},
};
use crate::printable::printable;

/// Which objects are followed.
#[derive(Clone, Debug, Default)]
pub struct Scope<'a> {
    /// `None` for all namespaces.
    pub namespace: Option<&'a str>,
    /// In Kubernetes' text form.
    pub label_selector: Option<&'a str>,
    /// In Kubernetes' text form.
    pub field_selector: Option<&'a str>,
}

/// How the server is to show the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    /// The objects themselves.
    Object,
    /// Tables of one row each; plain objects from a server that has no tables.
    Table,
}

/// One step of what happens to the objects.
#[derive(Clone, Debug)]
pub enum WatchChange {
    /// All there is at the beginning.
    Listed(Vec<Value>),
    /// An object is new or different.
    Applied(Value),
    /// An object is gone: as it was last, or `None` if that was not seen.
    Deleted(Option<Value>),
}

type Events = Pin<Box<dyn Stream<Item = watcher::Result<Event<Frame>>> + Send>>;

/// A watch under way.
pub struct Watch<'c> {
    cluster: &'c Cluster,
    events: Events,
    /// Revision of each object by namespace and name; `None` until the first list is complete.
    known: Option<BTreeMap<(String, String), String>>,
    listing: Vec<Frame>,
    pending: VecDeque<WatchChange>,
    /// Whether the user has been told that the server does not answer.
    outage_told: bool,
}

impl<'c> Watch<'c> {
    /// Follows the objects of `kind` in `scope`. Nothing is asked before the first [`Watch::next`].
    pub fn new(cluster: &'c Cluster, kind: &ResourceType, scope: &Scope<'_>, representation: Representation) -> Self {
        let client = cluster.client_for(representation);
        let api: Api<Frame> = match scope.namespace.filter(|_| kind.namespaced) {
            Some(namespace) => Api::namespaced_with(client, namespace, kind),
            None => Api::all_with(client, kind),
        };
        let config = watcher::Config {
            label_selector: scope.label_selector.map(str::to_owned),
            field_selector: scope.field_selector.map(str::to_owned),
            // A bookmark of a table has no metadata of its own on every server.
            bookmarks: representation == Representation::Object,
            ..watcher::Config::default()
        };
        Self {
            cluster,
            events: Box::pin(watcher(api, config).default_backoff()),
            known: None,
            listing: Vec::new(),
            pending: VecDeque::new(),
            outage_told: false,
        }
    }

    /// Waits for the next change. Fails where watching on is of no use.
    pub async fn next(&mut self) -> anyhow::Result<WatchChange> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Ok(change);
            }
            match self.events.next().await {
                Some(Ok(event)) => self.take(event),
                Some(Err(error)) => self.check_error(error)?,
                None => anyhow::bail!("the watch ended"),
            }
        }
    }

    fn take(&mut self, event: Event<Frame>) {
        self.outage_told = false;
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(frame) => self.listing.push(frame),
            Event::InitDone => self.compare(),
            Event::Apply(frame) => {
                self.known.get_or_insert_default().insert(frame.key(), frame.revision());
                self.pending.push_back(WatchChange::Applied(frame.content));
            }
            Event::Delete(frame) => {
                self.known.get_or_insert_default().remove(&frame.key());
                self.pending.push_back(WatchChange::Deleted(Some(frame.content)));
            }
        }
    }

    /// Compares a complete list with what is known: the first list is reported whole, a later one by its differences.
    fn compare(&mut self) {
        let listing = std::mem::take(&mut self.listing);
        let now: BTreeMap<_, _> = listing.iter().map(|frame| (frame.key(), frame.revision())).collect();
        match self.known.replace(now.clone()) {
            None => {
                self.pending.push_back(WatchChange::Listed(listing.into_iter().map(|frame| frame.content).collect()))
            }
            Some(before) => {
                let changed = listing.into_iter().filter(|frame| before.get(&frame.key()) != Some(&frame.revision()));
                self.pending.extend(changed.map(|frame| WatchChange::Applied(frame.content)));
                let gone = before.keys().filter(|key| !now.contains_key(*key));
                self.pending.extend(gone.map(|_| WatchChange::Deleted(None)));
            }
        }
    }

    /// Returns an error that is final; of the others the user is told once, until the server answers again.
    fn check_error(&mut self, error: watcher::Error) -> anyhow::Result<()> {
        let error = match error {
            watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => error,
            watcher::Error::WatchError(status) => kube::Error::Api(status),
            // The next poll resumes from the last revision that was seen.
            watcher::Error::WatchFailed(error) => {
                tracing::debug!(%error, "the watch broke off; resuming it");
                return Ok(());
            }
            watcher::Error::NoResourceVersion => anyhow::bail!("the server lists objects without a resourceVersion"),
        };
        match &error {
            kube::Error::Api(status) if status.code == GONE => return Ok(()),
            kube::Error::Api(status) if is_refusal(status.code) => return Err(ApiError::from(&**status).into()),
            _ if self.known.is_none() => return Err(self.cluster.failed(error)),
            _ => {}
        }
        if !self.outage_told {
            self.outage_told = true;
            eprintln!("{}", interruption(&self.cluster.failed(error)));
        }
        Ok(())
    }
}

/// What the user is told of it. An extension API server may have written the error.
fn interruption(error: &anyhow::Error) -> String {
    format!("Warning: the watch is interrupted and will be resumed: {}", printable(&format!("{error:#}")))
}

/// The revision is too old: the watcher lists again.
const GONE: u16 = 410;

/// Whether another try would end the same way: all client errors except timeout (408) and too many requests (429).
fn is_refusal(code: u16) -> bool {
    (400..500).contains(&code) && !matches!(code, 408 | 429)
}

/// Waits until `check` has a result for the object `name`; it is given `None` where there is no such object.
pub async fn until<T>(
    cluster: &Cluster,
    kind: &ResourceType,
    namespace: &str,
    name: &str,
    mut check: impl FnMut(Option<&Value>) -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    check_name(name)?;
    let field = field_equals("metadata.name", name);
    let scope = Scope { namespace: Some(namespace), field_selector: Some(&field), ..Scope::default() };
    let mut watch = Watch::new(cluster, kind, &scope, Representation::Object);
    loop {
        let result = match watch.next().await? {
            WatchChange::Listed(objects) => check(objects.first())?,
            WatchChange::Applied(object) => check(Some(&object))?,
            WatchChange::Deleted(_) => check(None)?,
        };
        if let Some(result) = result {
            return Ok(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::fake::{Answer, FakeServer, pods};

    #[test]
    fn an_error_of_a_server_does_not_reach_the_terminal() {
        let told = interruption(&anyhow::anyhow!("\u{1b}]0;title\u{7}").context("no answer"));
        let text = "Warning: the watch is interrupted and will be resumed: no answer: ^[]0;title\\u{7}";
        assert_eq!(told, text);
    }

    fn pod(name: &str, revision: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": revision}})
    }

    fn list(revision: &str, items: &[Value]) -> Answer {
        Answer::json(
            &json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": revision}, "items": items}),
        )
    }

    fn event(kind: &str, object: &Value) -> Value {
        json!({"type": kind, "object": object})
    }

    fn names(change: WatchChange) -> String {
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match change {
            WatchChange::Listed(objects) => {
                format!("listed {}", objects.iter().map(name).collect::<Vec<_>>().join(","))
            }
            WatchChange::Applied(object) => format!("applied {}", name(&object)),
            WatchChange::Deleted(object) => format!("deleted {}", object.as_ref().map(name).unwrap_or_default()),
        }
    }

    async fn follow(server: &FakeServer, count: usize) -> Vec<String> {
        let cluster = server.cluster("default");
        let mut watch = Watch::new(
            &cluster,
            &pods(),
            &Scope { namespace: Some("default"), ..Scope::default() },
            Representation::Object,
        );
        let mut seen = Vec::new();
        for _ in 0..count {
            seen.push(names(watch.next().await.expect("the watch goes on")));
        }
        seen
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_is_resumed_from_the_last_revision() {
        let server = FakeServer::new([
            list("1", &[pod("a", "1")]),
            Answer::broken(&[event("ADDED", &pod("b", "2"))]),
            Answer::Unreachable,
            Answer::events(&[event("MODIFIED", &pod("a", "3"))]),
            Answer::events(&[event("DELETED", &pod("b", "4"))]),
        ]);
        assert_eq!(follow(&server, 4).await, ["listed a", "applied b", "applied a", "deleted b"]);
        let watches: Vec<String> = server.requests().into_iter().filter(|path| path.contains("watch=true")).collect();
        let from: Vec<bool> = ["1", "2", "2", "3"]
            .iter()
            .zip(&watches)
            .map(|(r, p)| p.contains(&format!("resourceVersion={r}")))
            .collect();
        assert_eq!(from, [true; 4], "{watches:?}");
    }

    #[tokio::test]
    async fn a_revision_that_is_too_old_leads_to_a_list_of_which_the_differences_are_told() {
        let expired =
            json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
        let server = FakeServer::new([
            list("1", &[pod("a", "1"), pod("b", "1"), pod("c", "1")]),
            Answer::events(&[event("ERROR", &expired)]),
            list("9", &[pod("a", "1"), pod("b", "8"), pod("d", "9")]),
        ]);
        assert_eq!(follow(&server, 4).await, ["listed a,b,c", "applied b", "applied d", "deleted "]);
    }

    #[tokio::test]
    async fn a_refusal_ends_the_watch_with_its_reason() {
        let server = FakeServer::new([list("1", &[]), Answer::refusal(403, "Forbidden", "no watching here")]);
        let cluster = server.cluster("default");
        let mut watch = Watch::new(&cluster, &pods(), &Scope::default(), Representation::Object);
        watch.next().await.expect("the list is allowed");
        let error = watch.next().await.expect_err("forbidden");
        assert_eq!(crate::failure::describe(&error), "Error from server (Forbidden): no watching here");
    }

    #[tokio::test]
    async fn a_server_that_never_answered_is_an_error() {
        let server = FakeServer::new([Answer::Unreachable]);
        let cluster = server.cluster("default");
        let error = Watch::new(&cluster, &pods(), &Scope::default(), Representation::Object).next().await;
        assert!(crate::failure::describe(&error.expect_err("no server")).contains("does not answer"));
    }

    #[tokio::test]
    async fn tables_are_followed_row_by_row() {
        let table = |names: &[&str], revision: &str| {
            let rows: Vec<Value> = names
                .iter()
                .map(|name| json!({"cells": [name], "object": {"metadata": pod(name, revision)["metadata"]}}))
                .collect();
            json!({"kind": "Table", "metadata": {"resourceVersion": revision}, "columnDefinitions": [{"name": "Name"}],
                "rows": rows})
        };
        let server = FakeServer::new([
            Answer::json(&table(&["a", "b"], "1")),
            Answer::broken(&[event("MODIFIED", &table(&["a"], "2"))]),
            Answer::events(&[event("MODIFIED", &table(&["b"], "3"))]),
        ]);
        let cluster = server.cluster("default");
        let mut watch = Watch::new(&cluster, &pods(), &Scope::default(), Representation::Table);
        let mut rows = Vec::new();
        for _ in 0..3 {
            match watch.next().await.expect("the watch goes on") {
                WatchChange::Listed(tables) => rows.extend(tables),
                WatchChange::Applied(table) => rows.push(table),
                WatchChange::Deleted(_) => panic!("nothing is deleted"),
            }
        }
        let cells: Vec<&str> = rows.iter().filter_map(|table| table["rows"][0]["cells"][0].as_str()).collect();
        assert_eq!(cells, ["a", "b", "a", "b"]);
    }

    #[tokio::test]
    async fn until_sees_that_an_object_is_gone_after_a_break() {
        let server = FakeServer::new([
            list("1", &[pod("a", "1")]),
            Answer::broken(&[]),
            Answer::events(&[event("DELETED", &pod("a", "2"))]),
        ]);
        let cluster = server.cluster("default");
        let is_gone = |object: Option<&Value>| Ok(object.is_none().then_some(()));
        until(&cluster, &pods(), "default", "a", is_gone).await.expect("it goes");
    }
}
