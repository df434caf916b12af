//! What the runtime says of containers: the end of each as it happens, and every few seconds a list of all, since
//! events can be lost.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use tokio::time::Instant;

use crate::runtime::{Event, Runtime, Summary};

/// News of the runtime.
pub(super) enum RuntimeChange {
    /// A container has ended.
    Ended(Event),
    /// All containers of the node.
    Listed(Vec<Summary>),
}

/// Between two lists where nothing calls for one sooner.
pub const RELIST: Duration = Duration::from_secs(10);

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A stream of events that lasted this long is asked for again at once when it ends.
const STEADY: Duration = Duration::from_secs(10);

/// The runtime's changes, over its restarts. Never ends.
pub(super) fn runtime_changes(runtime: Arc<dyn Runtime>, relist_every: Duration) -> BoxStream<'static, RuntimeChange> {
    let ends = ends(runtime.clone());
    let lists = futures::stream::unfold(runtime, move |runtime| async move {
        tokio::time::sleep(relist_every).await;
        Some((list(&*runtime).await, runtime))
    });
    futures::stream::select(ends, lists.filter_map(futures::future::ready)).boxed()
}

/// The runtime's events; before the first of each connection a list, since some may have been missed.
fn ends(runtime: Arc<dyn Runtime>) -> BoxStream<'static, RuntimeChange> {
    let connections =
        futures::stream::unfold(Connections { runtime, wait: FIRST_WAIT, latest: None }, Connections::next);
    connections.flatten().boxed()
}

/// The streams of events, one after the other.
struct Connections {
    runtime: Arc<dyn Runtime>,
    /// Before the next try, unless the latest stream lasted.
    wait: Duration,
    /// When the latest stream began.
    latest: Option<Instant>,
}

impl Connections {
    /// The next stream of events, with a list before them.
    async fn next(mut self) -> Option<(BoxStream<'static, RuntimeChange>, Self)> {
        let is_first = self.latest.is_none();
        match self.latest {
            Some(began) if began.elapsed() < STEADY => {
                tracing::warn!("the container runtime ends its stream of events; asking for it again");
                self.back_off().await;
            }
            _ => self.wait = FIRST_WAIT,
        }
        loop {
            match self.runtime.events().await {
                Ok(events) => {
                    if !is_first && let Err(error) = self.runtime.prepare().await {
                        tracing::warn!(error = error.chain(), "the container runtime is back, but not ready");
                    }
                    let listed = futures::stream::iter(list(&*self.runtime).await);
                    self.latest = Some(Instant::now());
                    return Some((listed.chain(events.map(RuntimeChange::Ended)).boxed(), self));
                }
                Err(error) => {
                    tracing::warn!(error = error.chain(), "the container runtime does not answer; trying again");
                    self.back_off().await;
                }
            }
        }
    }

    async fn back_off(&mut self) {
        tokio::time::sleep(self.wait).await;
        self.wait = self.wait.saturating_mul(2).min(LONGEST_WAIT);
    }
}

/// `None` where the runtime does not answer: the next list follows soon.
async fn list(runtime: &dyn Runtime) -> Option<RuntimeChange> {
    match runtime.summaries().await {
        Ok(summaries) => Some(RuntimeChange::Listed(summaries)),
        Err(error) => {
            tracing::warn!(error = error.chain(), "the containers cannot be listed; trying again");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeRuntime;

    #[tokio::test]
    async fn a_runtime_that_ends_its_events_at_once_is_asked_again_after_a_growing_wait() {
        let runtime = Arc::new(FakeRuntime::default());
        runtime.end_event_streams(true);
        let never = Duration::from_secs(1_000_000);
        let mut changes = runtime_changes(runtime.clone(), never);
        let drain = async { while changes.next().await.is_some() {} };
        assert!(tokio::time::timeout(Duration::from_secs(1), drain).await.is_err(), "it never ends");
        let asked = runtime.calls("events").len();
        // At 0, 100, 300 and 700 ms.
        assert!((1..=4).contains(&asked), "{asked} times in a second");

        // Once a stream lasts, what is in it comes.
        runtime.end_event_streams(false);
        let owner = crate::runtime::ContainerOwner {
            pod: crate::runtime::PodRef { namespace: "default".into(), name: "web".into(), uid: "1".into() },
            role: crate::runtime::Role::Sandbox,
            attempt: 0,
        };
        let id = runtime.add(owner);
        runtime.start(&id).await.unwrap();
        let listed = async {
            loop {
                match changes.next().await {
                    Some(RuntimeChange::Listed(listed)) if !listed.is_empty() => return,
                    _ => {}
                }
            }
        };
        listed.await;
        runtime.exit(&id, 1);
        assert!(matches!(changes.next().await, Some(RuntimeChange::Ended(event)) if event.id == id));
    }
}
