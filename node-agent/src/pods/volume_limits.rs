//! Evicts pods that keep more in an `emptyDir` on disk than its `sizeLimit` allows, as the kubelet does: each minute
//! the volumes that have a limit are measured. Volumes in memory have the size of their file system.
//!
//! The kubelet measures each pod in a goroutine of its own, for as long as that takes. Here few are measured at a time,
//! each for a limited time, and those that took long the last time come after all others: pods with millions of files
//! delay the limits of no other.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    dispatch::Workers,
    spec,
    state::Ended,
    volumes::{self, Incomplete, Kind, Usage},
    worker::{Handle, Input},
};

/// As the kubelet's `volumeStatsAggPeriod`.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
/// How long the volumes of one pod are counted, all together.
const LONGEST_COUNT: Duration = Duration::from_secs(20);
/// A pod whose volumes took longer is measured after those whose did not.
const SLOW: Duration = Duration::from_secs(1);
/// Pods that are measured at a time.
const AT_ONCE: usize = 4;

/// Measures until `stop`.
pub async fn run(context: Arc<Context>, workers: Workers, stop: CancellationToken) {
    let mut measuring = Measuring::default();
    let mut due = tokio::time::interval(MEASURE_EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick comes at once, when the pods are still starting.
    due.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = due.tick() => measuring.enqueue(workers.all()),
            () = measuring.one_ends(), if !measuring.is_idle() => {}
        }
        measuring.begin(&context);
    }
}

/// The pods that are to be measured, and those that are being measured.
#[derive(Default)]
pub struct Measuring {
    queue: Queue<Handle>,
    /// Each says how long it took.
    tasks: JoinSet<Duration>,
    /// The uid of the pod that a task measures.
    under_way: HashMap<task::Id, String>,
}

impl Measuring {
    /// Has these pods measured, unless that is under way or they wait for it already, and forgets all others.
    pub fn enqueue(&mut self, pods: Vec<Handle>) {
        let under_way: HashSet<&str> = self.under_way.values().map(String::as_str).collect();
        let pods = pods.into_iter().filter(|handle| !under_way.contains(&*handle.pod().uid));
        self.queue.enqueue(pods.map(|handle| (handle.pod().uid.clone(), handle)).collect());
    }

    /// Begins with as many of those that wait as may be measured at a time.
    pub fn begin(&mut self, context: &Arc<Context>) {
        while self.tasks.len() < AT_ONCE
            && let Some((uid, handle)) = self.queue.next()
        {
            let context = context.clone();
            let task = self.tasks.spawn(async move {
                let begun = Instant::now();
                check(&context, &handle).await;
                begun.elapsed()
            });
            self.under_way.insert(task.id(), uid);
        }
    }

    /// Whether nothing is being measured.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits until one pod is measured.
    pub async fn one_ends(&mut self) {
        let Some(ended) = self.tasks.join_next_with_id().await else { return };
        let (id, took) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "measuring the volumes of a pod ended abnormally");
                (error.id(), LONGEST_COUNT)
            }
        };
        if let Some(uid) = self.under_way.remove(&id) {
            self.queue.took(uid, took);
        }
    }
}

/// Who is measured next. Pods are known by their uid.
struct Queue<P> {
    next: u64,
    /// Those that took long are last; among the others, and among them, the first to come is the first.
    waiting: BTreeMap<(IsSlow, u64), (String, P)>,
    /// Of pods that there are.
    slow: HashMap<String, IsSlow>,
}

type IsSlow = bool;

impl<P> Default for Queue<P> {
    fn default() -> Self {
        Self { next: 0, waiting: BTreeMap::new(), slow: HashMap::new() }
    }
}

impl<P> Queue<P> {
    /// These are all pods that there are. Those that wait keep their places.
    fn enqueue(&mut self, pods: HashMap<String, P>) {
        self.slow.retain(|uid, _| pods.contains_key(uid));
        self.waiting.retain(|_, (uid, _)| pods.contains_key(uid));
        let waiting: HashSet<String> = self.waiting.values().map(|(uid, _)| uid.clone()).collect();
        for (uid, pod) in pods {
            if !waiting.contains(&uid) {
                let is_slow = self.slow.get(&uid).copied().unwrap_or_default();
                self.waiting.insert((is_slow, self.next), (uid, pod));
                self.next = self.next.wrapping_add(1);
            }
        }
    }

    fn next(&mut self) -> Option<(String, P)> {
        self.waiting.pop_first().map(|(_, next)| next)
    }

    fn took(&mut self, uid: String, took: Duration) {
        self.slow.insert(uid, took > SLOW);
    }
}

/// Measures the limited volumes of a pod, and evicts it where it keeps too much in one.
async fn check(context: &Context, handle: &Handle) {
    let pod = handle.view().pod.clone();
    if pod.metadata.deletion_timestamp.is_some() || spec::phase_is_final(&pod) || is_critical(&pod) {
        return;
    }
    let limited = limited_volumes(&pod);
    if limited.is_empty() {
        return;
    }
    let directory = volumes::volumes_dir(&context.pod_dir(&handle.pod().uid));
    let exceeded = match task::spawn_blocking(move || first_exceeded(&directory, limited)).await {
        Ok(exceeded) => exceeded,
        Err(error) => return tracing::error!(%error, "measuring a volume ended abnormally"),
    };
    if let Some(Limited { name, limit, .. }) = exceeded {
        // The kubelet's words, with its blank at the end.
        let message = format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. ");
        tracing::warn!(pod = %handle.pod(), volume = name, limit, "evicting a pod: its volume is too large");
        handle.send(Input::Evicted(Ended { reason: "Evicted", message })).await;
    }
}

/// A volume on disk with a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limited {
    name: String,
    bytes: u64,
    /// As the pod says it.
    limit: String,
}

fn limited_volumes(pod: &Pod) -> Vec<Limited> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let limited = volumes.filter_map(|volume| match volumes::kind(volume) {
        Ok(Kind::EmptyDir { in_memory: false, limit: Some(bytes) }) => Some(Limited {
            name: volume.name.clone(),
            bytes: u64::try_from(bytes).ok()?,
            limit: volume.empty_dir.as_ref()?.size_limit.as_ref()?.0.clone(),
        }),
        _ => None,
    });
    limited.collect()
}

/// The first of a pod's volumes that is found to be too large.
fn first_exceeded(directory: &Path, volumes: Vec<Limited>) -> Option<Limited> {
    let found = first_exceeded_by(volumes, LONGEST_COUNT, |volume, time| {
        let begun = Instant::now();
        let deadline = begun.checked_add(time).unwrap_or(begun);
        let measured = measure(&directory.join(&volume.name), volume.bytes, deadline);
        (measured, begun.elapsed())
    });
    match found {
        Ok(exceeded) => exceeded,
        Err(late) => {
            for volume in late {
                warn_of(&Incomplete::TimedOut, &directory.join(&volume.name));
            }
            None
        }
    }
}

/// The volumes have this time together: what one leaves, the others have, those before it in another round. An error
/// are those that had too little of it. `measure` gets the longest time that it may take, and says how long it took.
fn first_exceeded_by(
    mut volumes: Vec<Limited>,
    mut time: Duration,
    mut measure: impl FnMut(&Limited, Duration) -> (Measured, Duration),
) -> Result<Option<Limited>, Vec<Limited>> {
    // The last of a round has all the time that is left: it ends, or no time is left.
    while !time.is_zero() {
        let mut late = Vec::new();
        let mut left = u32::try_from(volumes.len()).unwrap_or(u32::MAX);
        for volume in volumes {
            let (measured, took) = measure(&volume, share_of(time, left));
            left = left.saturating_sub(1);
            time = time.saturating_sub(took);
            match measured {
                Measured::Exceeded => return Ok(Some(volume)),
                Measured::TimedOut => late.push(volume),
                Measured::NotExceeded => {}
            }
        }
        if late.is_empty() {
            return Ok(None);
        }
        volumes = late;
    }
    Err(volumes)
}

/// What is known of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measured {
    Exceeded,
    /// As far as it can be read.
    NotExceeded,
    TimedOut,
}

/// The time of one of so many that have this time together.
fn share_of(time: Duration, of: u32) -> Duration {
    time.checked_div(of).unwrap_or_default()
}

/// What is certainly in the volume decides: a part that cannot be read, or counted in time, does not hide the rest. The
/// kubelet knows nothing of a volume that it cannot read as a whole.
fn measure(directory: &Path, limit: u64, deadline: Instant) -> Measured {
    match volumes::used_bytes(directory, limit, deadline) {
        Ok(Usage { bytes, .. }) if bytes > limit => return Measured::Exceeded,
        Ok(Usage { incomplete: None, .. }) => {}
        Ok(Usage { incomplete: Some(Incomplete::TimedOut), .. }) => return Measured::TimedOut,
        Ok(Usage { incomplete: Some(why), .. }) => warn_of(&why, directory),
        // Not made yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => warn_of(&error, directory),
    }
    Measured::NotExceeded
}

fn warn_of(error: &(dyn std::error::Error + 'static), directory: &Path) {
    tracing::warn!(error, directory = %directory.display(), "the limit of a volume could not be enforced");
}

/// Pods of the priority `system-cluster-critical` and above are not evicted, as by the kubelet.
fn is_critical(pod: &Pod) -> bool {
    const SYSTEM_CRITICAL: i32 = 2_000_000_000;
    pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= SYSTEM_CRITICAL)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_empty_dirs_on_disk_with_a_positive_limit_are_watched_over() {
        let pod: Pod = serde_json::from_value(json!({ "spec": { "containers": [], "volumes": [
            { "name": "limited", "emptyDir": { "sizeLimit": "1Mi" } },
            { "name": "free", "emptyDir": {} },
            { "name": "zero", "emptyDir": { "sizeLimit": "0" } },
            { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
            { "name": "host", "hostPath": { "path": "/" } },
        ]}}))
        .unwrap();
        let limited = Limited { name: "limited".into(), bytes: 1 << 20, limit: "1Mi".into() };
        assert_eq!(limited_volumes(&pod), [limited]);
    }

    fn pods<'p>(uids: impl IntoIterator<Item = &'p str>) -> HashMap<String, ()> {
        uids.into_iter().map(|uid| (uid.to_owned(), ())).collect()
    }

    fn next(queue: &mut Queue<()>) -> Option<String> {
        queue.next().map(|(uid, ())| uid)
    }

    #[test]
    fn a_pod_that_takes_long_is_measured_after_all_that_do_not() {
        let mut queue = Queue::default();
        let slow: Vec<String> = (0..100).map(|number| format!("slow-{number}")).collect();
        for uid in &slow {
            queue.took(uid.clone(), LONGEST_COUNT);
        }
        queue.took("quick".to_owned(), Duration::from_millis(1));
        let all = || slow.iter().map(String::as_str).chain(["quick", "new"]);
        queue.enqueue(pods(all()));
        let first: HashSet<_> = [next(&mut queue).unwrap(), next(&mut queue).unwrap()].into();
        assert_eq!(first, ["quick".to_owned(), "new".to_owned()].into());
        // A minute later the slow ones still wait, and those that are quick are not behind them.
        let begun = next(&mut queue).unwrap();
        queue.enqueue(pods(all()));
        let again: HashSet<_> = [next(&mut queue).unwrap(), next(&mut queue).unwrap()].into();
        assert_eq!(again, first);
        let rest: Vec<_> = std::iter::from_fn(|| next(&mut queue)).collect();
        assert_eq!(rest.len(), 100);
        assert_eq!(rest.last(), Some(&begun), "who was measured last comes last");
    }

    #[test]
    fn pods_that_are_gone_are_forgotten() {
        let mut queue = Queue::default();
        queue.enqueue(pods(["a", "b"]));
        queue.took("a".to_owned(), LONGEST_COUNT);
        queue.enqueue(pods(["b"]));
        assert_eq!((next(&mut queue).as_deref(), next(&mut queue)), (Some("b"), None));
        assert!(queue.slow.is_empty());
    }

    #[test]
    fn the_volumes_of_a_pod_have_their_time_together() {
        let seconds = Duration::from_secs;
        assert_eq!(share_of(LONGEST_COUNT, 4), seconds(5));
        assert_eq!(share_of(seconds(20), 1), seconds(20), "what the others left");
        assert_eq!(share_of(Duration::ZERO, 3), Duration::ZERO);
    }

    fn limited(name: &str, bytes: u64) -> Limited {
        Limited { name: name.into(), bytes, limit: String::new() }
    }

    #[test]
    fn a_large_volume_has_the_time_that_those_after_it_leave() {
        let seconds = Duration::from_secs;
        let volumes = |large: &[&str]| -> Vec<Limited> {
            let small = (0..29).map(|number| limited(&format!("small-{number}"), 1));
            large.iter().map(|name| limited(name, 1)).chain(small).collect()
        };
        // Large ones show only after so long.
        let measure = |needed| {
            move |volume: &Limited, time: Duration| match volume.name.starts_with("large") {
                false => (Measured::NotExceeded, Duration::ZERO),
                true if time < needed => (Measured::TimedOut, time),
                true => (Measured::Exceeded, needed),
            }
        };
        let found = first_exceeded_by(volumes(&["large"]), LONGEST_COUNT, measure(seconds(15))).unwrap();
        assert_eq!(found.unwrap().name, "large");
        let late = first_exceeded_by(volumes(&["large", "large-2"]), LONGEST_COUNT, measure(seconds(20))).unwrap_err();
        assert_eq!(late, [limited("large", 1), limited("large-2", 1)]);
        assert_eq!(first_exceeded_by(volumes(&[]), LONGEST_COUNT, measure(seconds(20))), Ok(None));
    }

    #[test]
    fn what_was_counted_decides_though_the_rest_is_not_known() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), vec![1; 1 << 20]).unwrap();
        let (past, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        assert_eq!(measure(directory.path(), 1 << 10, later), Measured::Exceeded);
        assert_eq!(measure(directory.path(), 1 << 30, past), Measured::TimedOut, "nothing is known of the rest");
        for name in ["one", "two"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        std::fs::write(directory.path().join("two/file"), vec![1; 1 << 20]).unwrap();
        let volumes = vec![limited("none", 1), limited("one", 1 << 18), limited("two", 1 << 18)];
        assert_eq!(first_exceeded(directory.path(), volumes).unwrap().name, "two");
    }
}
