//! Removes images that no container uses, as the kubelet does: once the images' file system is fuller than the high
//! threshold, the longest unused first, until it is at the low one.
//!
//! Unlike the kubelet's, the container runtime may not be the agent's alone: a user's own images on a shared Docker
//! Engine are left alone. Only what pulls for this node's pods brought is removed (`pulled.rs`), and the sandbox images
//! that agents of other versions made; never by force.
//!
//! - `crate::image_gc_policy`: the settings
//! - `plan.rs`: what goes, and in which order (pure)
//! - `pulled.rs`: which images are the agent's

mod plan;
mod pulled;

use std::{path::PathBuf, sync::Arc, time::Duration};

use plan::{DiskUsage, ImageHistory};
pub use pulled::{KeptPulls, PulledImages};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Context, recorder::EventType};
use crate::{
    image_gc_policy::ImageGcPolicy,
    runtime::{self, LocalImage},
};

/// As the kubelet's `ImageGCPeriod`.
const COLLECT_EVERY: Duration = Duration::from_secs(300);

/// Why too little was freed.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    /// The runtime does not answer.
    #[error("cannot list the images: {}", .0.chain())]
    List(runtime::Error),
    /// Where the images are is not known.
    #[error("cannot ask for the images' file system: {}", .0.chain())]
    Directory(runtime::Error),
    /// `statvfs` failed.
    #[error("cannot measure the images' file system")]
    Measure,
    #[error("invalid capacity 0 on image filesystem")]
    NoCapacity,
    /// Each with its reason.
    #[error("wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {errors}")]
    Remove { wanted: u64, freed: u64, errors: String },
    /// All that may go is gone.
    #[error(
        "Insufficient free disk space on the node's image filesystem ({percent}% of {capacity} used). Failed to free \
         sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used \
         by active images, logs, volumes, or other data."
    )]
    TooFull { percent: u64, capacity: String, freed: u64 },
}

/// Measures the file system that holds a directory.
type Measure = Box<dyn Fn(PathBuf) -> Option<DiskUsage> + Send + Sync>;

/// Collects the images of one node.
struct Collector {
    context: Arc<Context>,
    policy: ImageGcPolicy,
    measure: Arc<Measure>,
    history: ImageHistory,
    began: Instant,
    has_failed: bool,
}

/// Collects every few minutes until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    if context.config.image_gc.is_off() {
        return stop.cancelled().await;
    }
    let policy = context.config.image_gc.clone();
    let mut collector = Collector::new(context, policy, Box::new(|directory| measure(&directory)));
    loop {
        collector.collect_and_report(Instant::now()).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(COLLECT_EVERY) => {}
        }
    }
}

fn measure(directory: &std::path::Path) -> Option<DiskUsage> {
    let found = crate::register::measurements::file_system(directory)?;
    Some(DiskUsage { capacity_bytes: found.size_bytes, available_bytes: found.available_bytes })
}

impl Collector {
    fn new(context: Arc<Context>, policy: ImageGcPolicy, measure: Measure) -> Self {
        let (history, began) = (ImageHistory::default(), Instant::now());
        Self { context, policy, measure: Arc::new(measure), history, began, has_failed: false }
    }

    /// A first failure is only logged; one after another is an event about the node.
    async fn collect_and_report(&mut self, now: Instant) {
        let Err(error) = self.collect(now).await else {
            self.has_failed = false;
            return;
        };
        tracing::warn!(error = &error as &dyn std::error::Error, "unused images were not removed as they should");
        let warn = |reason| self.context.recorder.record_node(EventType::Warning, reason, error.to_string());
        match error {
            CollectError::TooFull { .. } => warn("FreeDiskSpaceFailed"),
            CollectError::NoCapacity => warn("InvalidDiskCapacity"),
            _ => {}
        }
        if std::mem::replace(&mut self.has_failed, true) {
            warn("ImageGCFailed");
        }
    }

    async fn collect(&mut self, now: Instant) -> Result<(), CollectError> {
        let policy = self.policy.clone();
        let asked = self.context.pulled_images.now();
        let images = self.context.runtime.images().await.map_err(CollectError::List)?;
        self.history.observe(&images, now);
        self.context.pulled_images.retain(&images, asked);
        let mut unused = self.history.unused(images, now);
        unused.retain(|image| self.context.pulled_images.contains(image) || image.is_sandbox());
        let (old, rest): (Vec<_>, Vec<_>) =
            unused.into_iter().partition(|one| self.history.is_too_old(one, &policy, self.began, now));
        self.remove(old, u64::MAX, "unused for too long").await.map(drop)?;
        let Some(usage) = self.usage().await? else { return Ok(()) };
        let percent = usage.percent().ok_or(CollectError::NoCapacity)?;
        let Some(wanted) = usage.bytes_to_free(&policy) else { return Ok(()) };
        tracing::info!(percent, wanted, "the images' file system is over the high threshold: removing unused images");
        let rest = rest.into_iter().filter(|image| self.history.may_go(image, &policy, now)).collect();
        let freed = self.remove(rest, wanted, "the disk is full").await?;
        if freed < wanted {
            return Err(CollectError::TooFull { percent, capacity: format_size(usage.capacity_bytes), freed });
        }
        Ok(())
    }

    /// `None` where the images are on no file system of this host.
    async fn usage(&self) -> Result<Option<DiskUsage>, CollectError> {
        let directory = self.context.runtime.image_dir().await.map_err(CollectError::Directory)?;
        let Some(directory) = directory else { return Ok(None) };
        let measure = self.measure.clone();
        let measured = tokio::task::spawn_blocking(move || measure(directory)).await;
        measured.ok().flatten().map(Some).ok_or(CollectError::Measure)
    }

    /// Removes images in this order until `wanted` bytes are free; returns how many are.
    async fn remove(&self, images: Vec<LocalImage>, wanted: u64, why: &str) -> Result<u64, CollectError> {
        let (mut freed, mut errors) = (0_u64, Vec::new());
        for image in images {
            if freed >= wanted {
                break;
            }
            match self.context.runtime.remove_image(&image).await {
                Ok(true) => {
                    let bytes = image.size_bytes;
                    tracing::info!(id = image.id, tags = ?image.tags, bytes, why, "removed an image");
                    freed = freed.saturating_add(image.size_bytes);
                }
                Ok(false) => tracing::debug!(id = image.id, "an image is in use after all, and stays"),
                Err(error) => errors.push(error.chain()),
            }
        }
        if errors.is_empty() {
            return Ok(freed);
        }
        Err(CollectError::Remove { wanted, freed, errors: errors.join("; ") })
    }
}

/// As people read it: `1.5 GiB`.
fn format_size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = usize::try_from(bytes.max(1).ilog2() / 10).unwrap_or_default().min(units.len() - 1);
    match step {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {}", bytes as f64 / (1_u64 << (10 * step)) as f64, units[step]),
    }
}

#[cfg(test)]
mod tests;
