//! When quotas are counted anew: when one is new or changed, when an object that one measures has gone or takes less,
//! when a kind that one names comes to be served, and every few minutes.
//!
//! What is created or takes more was charged by the write itself, and is not looked at here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    KIND, RESOURCE, claims, device_claims,
    limits::Quota,
    measure::{Evaluator, Measure},
    parse, pods,
    recount::{self, QuotaObjects},
    services,
};
use crate::{
    admission::readings::Readings,
    encode,
    kinds::Registry,
    later::later,
    reflector::{Reflector, StoreUpdate},
    store::{Change, CommitError, Event, EventType, Expect, Key, Object, Snapshot, Store, Write},
};

/// As often as Kubernetes' controller counts everything.
const INTERVAL: Duration = Duration::from_secs(300);
/// Until the next try where a quota is charged faster than it can be counted, or the store cannot write: twice as long
/// each time, up to [`LONGEST_RETRY`].
const RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Keeps the status of all quotas right, until `stop`.
pub async fn run(store: Arc<dyn Store>, kinds: Registry, stop: CancellationToken) {
    let mut counter = QuotaController::new(store, kinds);
    stop.run_until_cancelled(counter.run()).await.unwrap_or_default();
}

struct QuotaController {
    store: Arc<dyn Store>,
    kinds: Registry,
    pods: Readings<Measure>,
    services: Readings<Measure>,
    claims: Readings<Measure>,
    device_claims: Readings<Measure>,
    /// Of the quotas, and of all that they measure.
    reflector: Reflector,
    /// Namespaces whose quotas are to be counted.
    stale: BTreeSet<String>,
    /// Namespaces that could not be counted: when to try again, whatever happens until then, and after which wait.
    delayed: BTreeMap<String, (Instant, Duration)>,
    /// When a namespace is to be counted although nothing changes: Unix seconds.
    due: BTreeMap<String, i64>,
}

impl QuotaController {
    fn new(store: Arc<dyn Store>, kinds: Registry) -> Self {
        Self {
            reflector: Reflector::new(store.clone(), [RESOURCE]),
            store,
            kinds,
            pods: Readings::new("pods", pods::measure),
            services: Readings::new("services", services::measure),
            claims: Readings::new("persistentvolumeclaims", claims::measure),
            device_claims: Readings::new(device_claims::RESOURCE, device_claims::measure),
            stale: BTreeSet::new(),
            delayed: BTreeMap::new(),
            due: BTreeMap::new(),
        }
    }

    async fn run(&mut self) {
        let mut all_at = later(Instant::now(), INTERVAL);
        let mut served = self.kinds.subscribe();
        loop {
            let again = self.stale.iter().filter_map(|namespace| Some(self.delayed.get(namespace)?.0)).min();
            let until = [again, self.next_due(), Some(all_at)].into_iter().flatten().min().unwrap_or(all_at);
            tokio::select! {
                update = self.reflector.next() => match update {
                    StoreUpdate::Listed(snapshot) => {
                        all_at = later(Instant::now(), INTERVAL);
                        self.mark_all(&snapshot);
                    }
                    StoreUpdate::Changed(events) => self.mark(&events),
                },
                Ok(()) = served.changed() => self.mark_uncounted(),
                () = tokio::time::sleep_until(until) => match Instant::now() >= all_at {
                    true => self.reflector.begin_anew(),
                    false => self.mark_due(),
                },
            }
            self.follow_what_is_measured();
            self.count_stale().await;
        }
    }

    async fn count_stale(&mut self) {
        for namespace in std::mem::take(&mut self.stale) {
            if self.delayed.get(&namespace).is_some_and(|(at, _)| *at > Instant::now()) {
                self.stale.insert(namespace);
                continue;
            }
            match self.count(&namespace).await {
                Ok(QuotaCount::Whole) => drop(self.delayed.remove(&namespace)),
                // What was made while a quota was not in force yet was not charged to it.
                Ok(QuotaCount::NowInForce) => self.delay(namespace),
                Err(error) => {
                    if !matches!(error, CommitError::Conflict { .. }) {
                        tracing::warn!(namespace, %error, "quotas could not be counted");
                    }
                    self.delay(namespace);
                }
            }
        }
    }

    /// Notes the namespaces with quotas of objects that were not served when they were counted.
    fn mark_uncounted(&mut self) {
        let snapshot = self.store.snapshot();
        for (key, object) in snapshot.list(RESOURCE, "", None) {
            let Some(namespace) = namespace_of(key).filter(|namespace| !self.stale.contains(namespace)) else {
                continue;
            };
            if parse(object).is_ok_and(|value| self.is_uncounted(&Quota::read(&value))) {
                self.stale.insert(namespace);
            }
        }
    }

    /// Whether a quota does not say how much is used of something that can be counted now.
    fn is_uncounted(&self, quota: &Quota) -> bool {
        let mut measured = quota.wanted.keys().filter(|name| self.is_measured(name));
        measured.any(|name| !quota.used.contains_key(name))
    }

    /// Counts a namespace once more after a while.
    fn delay(&mut self, namespace: String) {
        let wait = self.delayed.get(&namespace).map_or(RETRY, |(_, wait)| wait.saturating_mul(2).min(LONGEST_RETRY));
        self.delayed.insert(namespace.clone(), (later(Instant::now(), wait), wait));
        self.stale.insert(namespace);
    }

    /// Notes all namespaces with quotas.
    fn mark_all(&mut self, snapshot: &Snapshot) {
        self.due.clear();
        self.stale = snapshot.list(RESOURCE, "", None).filter_map(|(key, _)| namespace_of(key)).collect();
    }

    /// Follows the resources that quotas to be counted measure. They are counted after that has begun.
    fn follow_what_is_measured(&mut self) {
        let snapshot = self.store.snapshot();
        for namespace in &self.stale {
            for (_, _, quota) in quotas(&snapshot, namespace) {
                for resource in recount::resources(&quota) {
                    if self.kinds.snapshot().by_resource(resource).is_some() {
                        self.reflector.follow_after(resource, &snapshot);
                    }
                }
            }
        }
    }

    /// Notes which namespaces the changes concern.
    fn mark(&mut self, events: &[Arc<Event>]) {
        for event in events {
            let Some(namespace) = namespace_of(&event.key.name) else { continue };
            if !self.stale.contains(&namespace) && self.concerns(&event.key.resource, &namespace, event) {
                self.stale.insert(namespace);
            }
        }
    }

    fn concerns(&self, resource: &str, namespace: &str, event: &Event) -> bool {
        if resource == RESOURCE && event.event_type != EventType::Deleted {
            // Charges change what is used, and nothing else.
            let Ok(value) = parse(&event.object) else { return false };
            let quota = Quota::read(&value);
            if quota.wanted != quota.hard || self.is_uncounted(&quota) {
                return true;
            }
        }
        match event.event_type {
            EventType::Added => false,
            EventType::Deleted => has_quotas(&self.store.snapshot(), namespace),
            EventType::Modified => {
                let Some(evaluator) = Evaluator::of(resource).filter(|one| !matches!(one, Evaluator::Count(_))) else {
                    return false;
                };
                if !has_quotas(&self.store.snapshot(), namespace) {
                    return false;
                }
                let measure = |object: &Object| parse(object).map(|value| evaluator.measure(&value)).ok();
                event.previous.as_deref().and_then(measure) != measure(&event.object)
            }
        }
    }

    /// Whether something of this name can be counted now.
    fn is_measured(&self, name: &str) -> bool {
        Evaluator::resource_of(name).is_some_and(|resource| self.kinds.snapshot().by_resource(resource).is_some())
    }

    fn next_due(&self) -> Option<Instant> {
        let seconds = self.due.values().min()?.saturating_add(1).saturating_sub(Timestamp::now().as_second());
        let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        Some(later(Instant::now(), wait))
    }

    fn mark_due(&mut self) {
        let now = Timestamp::now().as_second();
        let due: Vec<String> =
            self.due.iter().filter(|(_, until)| **until < now).map(|(namespace, _)| namespace.clone()).collect();
        for namespace in due {
            self.due.remove(&namespace);
            self.stale.insert(namespace);
        }
    }

    /// Counts the quotas of a namespace, each as it is at one moment.
    async fn count(&mut self, namespace: &str) -> Result<QuotaCount, CommitError> {
        let snapshot = self.store.snapshot();
        let now = Timestamp::now().as_second();
        let quotas = quotas(&snapshot, namespace);
        let resources: BTreeSet<&str> = quotas.iter().flat_map(|(_, _, quota)| recount::resources(quota)).collect();
        let found: BTreeMap<String, QuotaObjects> = resources
            .into_iter()
            .filter_map(|resource| Some((resource.to_owned(), self.find(&snapshot, namespace, resource)?)))
            .collect();
        let (mut writes, mut until, mut counted) = (Vec::new(), None, QuotaCount::Whole);
        for (key, object, quota) in &quotas {
            let planned = recount::plan(quota, &found, now);
            until = [until, planned.until].into_iter().flatten().min();
            let Some(status) = planned.status else { continue };
            let Ok(mut value) = parse(object) else { continue };
            value["status"] = status;
            if quota.hard != quota.wanted {
                counted = QuotaCount::NowInForce;
            }
            writes.push(Write {
                key: Key { resource: RESOURCE.into(), name: key.clone() },
                expect: Expect::At(object.revision),
                change: Change::Put(encode::managed_draft(&KIND, &value, &object.managers())),
            });
        }
        match until {
            Some(until) => self.due.insert(namespace.to_owned(), until),
            None => self.due.remove(namespace),
        };
        if !writes.is_empty() {
            self.store.write(writes).await.into_iter().try_for_each(|written| written.map(drop))?;
        }
        Ok(counted)
    }

    /// The objects of a resource in a namespace; `None` if it is not served.
    fn find(&self, snapshot: &Snapshot, namespace: &str, resource: &str) -> Option<QuotaObjects> {
        let prefix = format!("{namespace}/");
        let measured = |readings: &Readings<Measure>| {
            let all = readings.list(snapshot, &prefix);
            Some(QuotaObjects::Measured(all.into_iter().map(|(_, measure)| measure).collect()))
        };
        match resource {
            "pods" => measured(&self.pods),
            "services" => measured(&self.services),
            "persistentvolumeclaims" => measured(&self.claims),
            device_claims::RESOURCE => measured(&self.device_claims),
            resource => {
                self.kinds.snapshot().by_resource(resource)?;
                let count = snapshot.list(resource, &prefix, None).count();
                Some(QuotaObjects::Counted(i64::try_from(count).unwrap_or(i64::MAX)))
            }
        }
    }
}

/// What a count has come to.
enum QuotaCount {
    /// The quotas say what there is, and every write since is charged to them.
    Whole,
    /// A quota is in force from this count on: what was made meanwhile is not in it.
    NowInForce,
}

fn namespace_of(key: &str) -> Option<String> {
    key.split_once('/').map(|(namespace, _)| namespace.to_owned())
}

fn has_quotas(snapshot: &Snapshot, namespace: &str) -> bool {
    snapshot.list(RESOURCE, &format!("{namespace}/"), None).next().is_some()
}

fn quotas(snapshot: &Snapshot, namespace: &str) -> Vec<(Arc<str>, Arc<Object>, Quota)> {
    let prefix = format!("{namespace}/");
    let stored = snapshot.list(RESOURCE, &prefix, None);
    let read = stored.filter_map(|(key, object)| {
        let value = parse(object).inspect_err(|error| tracing::error!("{error}")).ok()?;
        Some((key.clone(), object.clone(), Quota::read(&value)))
    });
    read.collect()
}
