//! Evicts pods that keep more in an `emptyDir` on disk than its `sizeLimit` allows, as the kubelet does: each minute
//! the volumes that have a limit are measured. Volumes in memory have the size of their file system.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    dispatch::Workers,
    spec,
    state::Ended,
    volumes::{self, Kind, Usage},
    worker::Input,
};

/// As the kubelet's `volumeStatsAggPeriod`.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
/// How long one volume is counted: others wait for that.
const LONGEST_COUNT: Duration = Duration::from_secs(20);

/// Measures until `stop`.
pub async fn run(context: Arc<Context>, workers: Workers, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
        if stop.run_until_cancelled(check(&context, &workers)).await.is_none() {
            return;
        }
    }
}

/// Measures the limited volumes of all pods, one after the other, and evicts pods that keep too much in one.
pub async fn check(context: &Context, workers: &Workers) {
    for handle in workers.all() {
        let pod = handle.view().pod.clone();
        if pod.metadata.deletion_timestamp.is_some() || spec::phase_is_final(&pod) || is_critical(&pod) {
            continue;
        }
        let volumes = volumes::volumes_dir(&context.pod_dir(&handle.pod().uid));
        for limited in limited_volumes(&pod) {
            if is_exceeded(volumes.join(&limited.name), limited.bytes).await {
                // The kubelet's words, with its blank at the end.
                let Limited { name, limit, .. } = limited;
                let message = format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. ");
                tracing::warn!(pod = %handle.pod(), volume = name, limit, "evicting a pod: its volume is too large");
                handle.send(Input::Evicted(Ended { reason: "Evicted", message })).await;
                break;
            }
        }
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

/// What is certainly in the volume decides: a part that cannot be read, or counted in time, does not hide the rest.
async fn is_exceeded(directory: PathBuf, limit: u64) -> bool {
    let place = directory.clone();
    let measured = tokio::task::spawn_blocking(move || {
        let now = Instant::now();
        volumes::used_bytes(&place, limit, now.checked_add(LONGEST_COUNT).unwrap_or(now))
    });
    let warn = |error: &(dyn std::error::Error + 'static)| {
        tracing::warn!(error, directory = %directory.display(), "a volume with a limit cannot be measured");
    };
    match measured.await {
        Ok(Ok(Usage { bytes, .. })) if bytes > limit => return true,
        Ok(Ok(Usage { incomplete: None, .. })) => {}
        Ok(Ok(Usage { incomplete: Some(why), .. })) => warn(&why),
        // Not made yet.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
        Ok(Err(error)) => warn(&error),
        Err(error) => tracing::error!(%error, "measuring a volume ended abnormally"),
    }
    false
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
}
