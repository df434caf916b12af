//! Turns watch events of the API into snapshots of the [`World`] and publishes them. Decides nothing about traffic.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, stream::BoxStream};
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::watch;

use super::{
    World,
    writer::{Change, Writer},
};

/// Watches Services, EndpointSlices and Nodes until `stop`, publishing a snapshot after every burst of events.
///
/// Nothing is published before the first list of every kind is complete. A failing watch is retried with back-off for as long as
/// it takes; meanwhile the last snapshot stands.
pub async fn run(client: Client, publish: watch::Sender<Arc<World>>, stop: tokio_util::sync::CancellationToken) {
    let mut events = futures::stream::select_all([
        events::<core::Service>(client.clone(), watcher::Config::default(), Change::Service),
        events::<discovery::EndpointSlice>(client.clone(), watcher::Config::default(), Change::Slice),
        events::<core::Node>(client, watcher::Config::default(), Change::Node),
    ]);
    let mut writer = Writer::default();
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        let Some(first) = first else { return };
        writer.apply(first);
        for _ in 1..MAX_BURST {
            match events.next().now_or_never() {
                Some(Some(event)) => writer.apply(event),
                _ => break,
            }
        }
        let world = writer.world();
        if world.synced {
            publish.send_replace(Arc::new(world));
        }
    }
}

/// Events taken into one snapshot at the most, so that readers never wait for an endless burst.
const MAX_BURST: usize = 4096;

fn events<K>(
    client: Client,
    config: watcher::Config,
    wrap: fn(Box<watcher::Event<K>>) -> Change,
) -> BoxStream<'static, Change>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Send
        + 'static,
{
    watcher(Api::<K>::all(client), config)
        .default_backoff()
        .filter_map(move |event| {
            futures::future::ready(match event {
                Ok(event) => Some(wrap(Box::new(event))),
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), error = &error as &dyn std::error::Error, "watch failed, trying again");
                    None
                }
            })
        })
        .boxed()
}
