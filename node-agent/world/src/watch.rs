//! Turns watch events of the API into snapshots of the [`World`] and publishes them. Decides nothing about traffic.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_client::{Api, Events, Object};
use futures::{FutureExt, StreamExt, stream::BoxStream};
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use kube::{Client, runtime::watcher};
use tokio::sync::watch;

use super::{
    World,
    writer::{WorldChange, Writer},
};

/// Watches Services, EndpointSlices and Nodes until `stop`, publishing a snapshot after every burst of events that
/// changed something: heartbeats of Nodes and lists of what is known wake nobody.
///
/// Nothing is published before the first list of every kind is complete. A failing watch is retried with back-off for
/// as long as it takes; meanwhile the last snapshot stands.
pub async fn run(
    client: Client,
    publish: watch::Sender<Arc<World>>,
    health: watch::Sender<WatchHealth>,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut events = futures::stream::select_all([
        events::<core::Service>(client.clone(), watcher::Config::default(), WorldChange::Service),
        events::<discovery::EndpointSlice>(client.clone(), watcher::Config::default(), WorldChange::Slice),
        events::<core::Node>(client, watcher::Config::default(), WorldChange::Node),
    ]);
    let mut writer = Writer::default();
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        let Some(first) = first else { return };
        let mut changed = false;
        let mut take = |event: Watched| match event {
            Watched::WorldChange(change) => {
                health.send_if_modified(|health| health.recovered(change.kind()));
                changed |= writer.apply(change);
            }
            Watched::Failed { kind, error } => health.send_modify(|health| health.failed(kind, error, Instant::now())),
        };
        take(first);
        for _ in 1..MAX_BURST {
            match events.next().now_or_never() {
                Some(Some(event)) => take(event),
                _ => break,
            }
        }
        let world = writer.world();
        if world.synced && changed {
            publish.send_replace(Arc::new(world));
        }
    }
}

enum Watched {
    WorldChange(WorldChange),
    Failed { kind: String, error: String },
}

/// Which watches fail, and why.
///
/// A watch that was opened again says so only with its next event, and a quiet cluster has none for long. A failing
/// watch is tried again at least once in [`RETRIED_WITHIN`], so an error that is older counts as over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchHealth {
    /// By kind.
    failures: BTreeMap<String, (Instant, String)>,
}

/// The watcher's longest back-off with its jitter, and the time in which the client gives up connecting.
const RETRIED_WITHIN: Duration = Duration::from_secs(90);

impl WatchHealth {
    /// Why the watches do not bring the API's state at `now`; `None` where they do.
    pub fn failure(&self, now: Instant) -> Option<String> {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < RETRIED_WITHIN;
        let recent: Vec<_> = self.failures.iter().filter(|(_, (at, _))| is_recent(*at)).collect();
        let text = recent.iter().map(|(kind, (_, error))| format!("cannot watch {kind}: {error}"));
        (!recent.is_empty()).then(|| text.collect::<Vec<_>>().join("; "))
    }

    fn failed(&mut self, kind: String, error: String, now: Instant) {
        self.failures.insert(kind, (now, error));
    }

    /// Whether the state changed.
    fn recovered(&mut self, kind: &str) -> bool {
        self.failures.remove(kind).is_some()
    }
}

/// Events taken into one snapshot at the most, so that readers never wait for an endless burst.
const MAX_BURST: usize = 4096;

fn events<K>(
    client: Client,
    config: watcher::Config,
    wrap: fn(Box<watcher::Event<K>>) -> WorldChange,
) -> BoxStream<'static, Watched>
where
    K: Object,
{
    Events::new(&Api::<K>::all(client), config)
        .map(move |event| match event {
            Ok(event) => Watched::WorldChange(wrap(Box::new(event))),
            Err(error) => {
                let kind = K::kind(&());
                tracing::warn!(%kind, error = &error as &dyn std::error::Error, "watch failed, trying again");
                Watched::Failed { kind: kind.into_owned(), error: fairlead_serving::error_chain(&error) }
            }
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_fails_until_its_next_event_or_until_no_error_came_for_a_while() {
        let start = Instant::now();
        let mut health = WatchHealth::default();
        assert_eq!(health.failure(start), None);
        health.failed("Node".into(), "refused".into(), start);
        health.failed("Service".into(), "refused".into(), start);
        assert_eq!(health.failure(start).unwrap(), "cannot watch Node: refused; cannot watch Service: refused");
        assert!(health.recovered("Node") && !health.recovered("Node"));
        assert_eq!(health.failure(start).unwrap(), "cannot watch Service: refused");
        assert_eq!(health.failure(start + RETRIED_WITHIN), None, "it would have been tried again by now");
    }
}
