//! What the runtime says of containers: the end of each as it happens, and every few seconds a list of all, since
//! events can be lost.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};

use crate::{
    pods::Context,
    runtime::{Event, Summary},
};

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

/// The runtime's changes, over its restarts. Never ends.
pub(super) fn runtime_changes(context: Arc<Context>) -> BoxStream<'static, RuntimeChange> {
    let ends = ends(context.clone());
    let lists = futures::stream::unfold(context, |context| async move {
        tokio::time::sleep(context.relist_every).await;
        Some((list(&context).await, context))
    });
    futures::stream::select(ends, lists.filter_map(futures::future::ready)).boxed()
}

/// The runtime's events; before the first of each connection a list, since some may have been missed.
fn ends(context: Arc<Context>) -> BoxStream<'static, RuntimeChange> {
    let connections = futures::stream::unfold((context, true), |(context, is_first)| async move {
        let mut wait = FIRST_WAIT;
        loop {
            match context.runtime.events().await {
                Ok(events) => {
                    if !is_first && let Err(error) = context.runtime.prepare().await {
                        tracing::warn!(error = error.chain(), "the container runtime is back, but not ready");
                    }
                    let listed = futures::stream::iter(list(&context).await);
                    return Some((listed.chain(events.map(RuntimeChange::Ended)), (context, false)));
                }
                Err(error) => {
                    tracing::warn!(error = error.chain(), "the container runtime does not answer; trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    });
    connections.flatten().boxed()
}

/// `None` where the runtime does not answer: the next list follows soon.
async fn list(context: &Context) -> Option<RuntimeChange> {
    match context.runtime.summaries().await {
        Ok(summaries) => Some(RuntimeChange::Listed(summaries)),
        Err(error) => {
            tracing::warn!(error = error.chain(), "the containers cannot be listed; trying again");
            None
        }
    }
}
