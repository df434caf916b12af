//! The one list-then-watch loop: keeps a [`View`] of a kind's objects up to date.
//!
//! kube's watcher lists, watches from the listing's revision, resumes a broken watch where it ended and lists again
//! when that is no longer possible; so nothing between two events is lost. This loop only hands its events to the view.

use std::collections::HashSet;

use futures::{Stream, StreamExt};
use kube::{Resource, runtime::watcher};
use tokio_util::sync::CancellationToken;

/// After this many failures in a row, and at each doubling of it, the log warns.
const WARN_AFTER: u32 = 4;

/// Something that follows the objects of one kind. Calls come one at a time, in the order of the events.
pub trait View<K>: Send + Sync {
    /// The object was created or changed, or was among those listed.
    fn apply(&self, object: K);
    /// The object was deleted; `object` is its last state.
    fn delete(&self, object: &K);
    /// A listing is complete: an object with none of these uids was deleted.
    fn listed(&self, uids: &HashSet<String>);
}

/// Applies `events` to `view` until `stop`, or until the stream ends.
pub async fn follow<K: Resource>(
    view: &impl View<K>,
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    stop: &CancellationToken,
) {
    let mut events = std::pin::pin!(events);
    let mut listing = HashSet::new();
    let mut failures = 0u32;
    while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
        failures = if event.is_ok() { 0 } else { failures.saturating_add(1) };
        match event {
            Ok(watcher::Event::Init) => listing.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                listing.extend(object.meta().uid.clone());
                view.apply(object);
            }
            Ok(watcher::Event::InitDone) => view.listed(&std::mem::take(&mut listing)),
            Ok(watcher::Event::Apply(object)) => view.apply(object),
            Ok(watcher::Event::Delete(object)) => view.delete(&object),
            Err(error) => log(&error, failures),
        }
    }
}

fn log(error: &watcher::Error, failures: u32) {
    if failures >= WARN_AFTER && failures.is_power_of_two() {
        tracing::warn!(error = error as &dyn std::error::Error, failures, "cannot watch");
    } else {
        tracing::debug!(%error, "watch interrupted");
    }
}

/// Everything, in one list in one answer: in process, pages only add requests.
pub fn everything() -> watcher::Config {
    watcher::Config { page_size: None, ..Default::default() }
}
