//! The running probes of one pod: one task each, which asks at its pace and reports to the worker when its verdict
//! changes.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{Check, CheckError, Counter, ProbeKey, Target, Verdict, pace::Pace};
use crate::pods::{Context, deadline, deadline::instant_after, recorder::EventType, spec, worker::Input};

/// One task per probe. Dropping it ends them all.
#[derive(Default)]
pub struct Probers(HashMap<ProbeKey, AbortOnDropHandle<()>>);

impl Probers {
    /// Starts the probes that are wanted and do not run, and ends those that are not wanted any more.
    pub fn adjust(
        &mut self,
        wanted: Vec<ProbeKey>,
        context: &Arc<Context>,
        pod: &Arc<Pod>,
        started_at: impl Fn(&ProbeKey) -> Option<Timestamp>,
        pod_ip: Option<Ipv4Addr>,
        sender: &mpsc::Sender<Input>,
    ) {
        // A probe ends by itself only by a panic: it is started again.
        self.0.retain(|key, task| wanted.contains(key) && !task.is_finished());
        let Some(pod_ip) = pod_ip else { return };
        for key in wanted {
            if self.0.contains_key(&key) {
                continue;
            }
            let since = started_at(&key).unwrap_or_else(Timestamp::now);
            let task = run(context.clone(), pod.clone(), key.clone(), since, pod_ip, sender.clone());
            self.0.insert(key, AbortOnDropHandle::new(tokio::spawn(task)));
        }
    }
}

async fn run(
    context: Arc<Context>,
    pod: Arc<Pod>,
    key: ProbeKey,
    started_at: Timestamp,
    pod_ip: Ipv4Addr,
    sender: mpsc::Sender<Input>,
) {
    let Some(container) = spec::container(&pod, &key.container) else { return };
    let Some(probe) = key.kind.probe(container) else { return };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
    };
    let threshold =
        |value: Option<i32>, default: u32| value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default);
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let mut counter =
        Counter::new(key.kind, threshold(probe.success_threshold, 1), threshold(probe.failure_threshold, 3));
    let first = deadline::timestamp_after(started_at, seconds(probe.initial_delay_seconds, 0));
    let delay = Duration::try_from(first.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
    let mut at = instant_after(Instant::now(), delay);
    let mut pace = Pace::new(key.kind, period);
    let target = Target { runtime: &*context.runtime, container_id: &key.id, container, pod_ip };
    loop {
        tokio::time::sleep_until(at).await;
        let asked = Instant::now();
        let result = match Check::of(probe) {
            Some(check) => check.run(&target, timeout).await,
            None => Err(CheckError::NoAction),
        };
        let next = pace.next(result.is_ok());
        at = instant_after(asked, next.after);
        if let (Err(error), true) = (&result, next.is_recorded) {
            let message = format!("{} probe failed: {error}", key.kind.name());
            context.recorder.record(&pod, Some(&key.container), EventType::Warning, "Unhealthy", message);
        }
        if let Some(healthy) = counter.add(result.is_ok()) {
            crate::pods::worker::send(&sender, Input::Probe(Verdict { key: key.clone(), healthy })).await;
        }
    }
}
