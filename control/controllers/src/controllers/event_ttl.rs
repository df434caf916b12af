//! Deletes Events an hour after they last happened, by a timer each; nothing is read until a timer is due.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fairlead_client::{Api, metadata_events};
use futures::FutureExt;
use k8s_openapi::{api::core::v1::Event, jiff::Timestamp};
use kube::{
    Client,
    api::{DeleteParams, Preconditions},
    core::{ApiResource, DynamicObject, PartialObjectMeta},
};

use super::Context;
use crate::engine::{
    Failure, Key, Outcome, Tasks, WorkQueue, is_gone_or_taken,
    watch::{View, everything, follow},
    work,
};

const COMPONENT: &str = "event-ttl";
/// Source: kube-apiserver's `--event-ttl`.
const TTL: Duration = Duration::from_secs(3600);

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let queue: Arc<WorkQueue<Key>> = Arc::new(WorkQueue::new(COMPONENT));
    tasks.measure(queue.clone());
    let (client, timers) = (context.client.clone(), Timers { queue: queue.clone() });
    tasks.spawn("event-watch", move |stop| {
        let (client, timers) = (client.clone(), timers.clone());
        async move {
            let events = metadata_events(client, &ApiResource::erase::<Event>(&()), everything());
            follow(&timers, events, &stop).await;
        }
        .boxed()
    });
    let client = context.client.clone();
    tasks.spawn(COMPONENT, move |stop| {
        let client = client.clone();
        work(COMPONENT, queue.clone(), 4, stop, move |key| reconcile(client.clone(), key)).boxed()
    });
}

/// Keeps no objects, only a timer for each.
#[derive(Clone)]
struct Timers {
    queue: Arc<WorkQueue<Key>>,
}

impl View<PartialObjectMeta<DynamicObject>> for Timers {
    fn apply(&self, event: PartialObjectMeta<DynamicObject>) {
        let now = Timestamp::now();
        let created = event.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
        self.queue.add_after(Key::of(&event), remaining(created, now).unwrap_or_default());
    }

    /// A timer that finds no Event ends by itself.
    fn delete(&self, _: &PartialObjectMeta<DynamicObject>) {}

    fn listed(&self, _: &HashSet<String>) {}
}

/// How long an Event that last happened at `at` still lives.
fn remaining(at: Timestamp, now: Timestamp) -> Option<Duration> {
    let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
    TTL.checked_sub(age).filter(|left| !left.is_zero())
}

fn last_happened(event: &Event) -> Timestamp {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
    let times = [
        event.metadata.creation_timestamp.as_ref().map(|t| t.0),
        event.last_timestamp.as_ref().map(|t| t.0),
        event.event_time.as_ref().map(|t| t.0),
        series,
    ];
    times.into_iter().flatten().max().unwrap_or(Timestamp::UNIX_EPOCH)
}

async fn reconcile(client: Client, key: Key) -> Result<Outcome, Failure> {
    let api: Api<Event> = Api::namespaced(client, &key.namespace);
    let Some(event) = api.get_opt(&key.name).await.map_err(Failure::request("read an Event"))? else {
        return Ok(Outcome::Done);
    };
    if let Some(left) = remaining(last_happened(&event), Timestamp::now()) {
        return Ok(Outcome::After(left));
    }
    let preconditions = Preconditions { uid: event.metadata.uid, resource_version: event.metadata.resource_version };
    match api.delete(&key.name, &DeleteParams::default().preconditions(preconditions)).await {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if is_gone_or_taken(&error) => Ok(Outcome::Done),
        Err(error) => Err(Failure::request("delete an old Event")(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_lives_an_hour_from_when_it_last_happened() {
        let event: Event = serde_json::from_value(json!({"involvedObject": {}, "metadata":
            {"creationTimestamp": "2026-01-01T00:00:00Z"}, "lastTimestamp": "2026-01-01T00:30:00Z"}))
        .expect("a valid event");
        let at = last_happened(&event);
        let now = |text: &str| text.parse::<Timestamp>().expect("a valid time");
        assert_eq!(remaining(at, now("2026-01-01T01:00:00Z")), Some(Duration::from_secs(1800)));
        assert_eq!(remaining(at, now("2026-01-01T01:30:00Z")), None);
    }
}
