//! What measurements of this machine mean for the conditions of its Node. Pure.

use std::time::{Duration, Instant};

use crate::eviction_thresholds::{EvictionThresholds, Threshold};

/// What the machine has at one moment. What could not be measured is `None`, and is no pressure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurements {
    /// From `/proc/meminfo`.
    pub memory: Option<Memory>,
    /// The file system of the data directory: volumes and logs.
    pub node_files: Option<FileSystem>,
    /// The file system of the runtime's images, where that is another.
    pub image_files: Option<FileSystem>,
    /// From `/proc/loadavg` and the kernel's limits.
    pub processes: Option<Processes>,
}

/// Memory of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All that the kernel manages: `MemTotal`.
    pub size_bytes: u64,
    /// What can be had without swapping: `MemAvailable`.
    pub available_bytes: u64,
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// What is used and what is available, as `df` counts: blocks kept for root, or beyond a quota, are neither.
    pub size_bytes: u64,
    /// What others than root may still write.
    pub available_bytes: u64,
    /// 0 where the file system makes inodes as it needs them.
    pub inodes: u64,
    /// What others than root may still take.
    pub inodes_free: u64,
}

/// Tasks of the kernel, which process ids limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processes {
    /// Threads too: each takes an id.
    pub running: u64,
    /// The lower one of `kernel.pid_max` and `kernel.threads-max`.
    pub limit: u64,
}

/// Which resources are short, with what was measured. `None`: enough is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressures {
    /// Condition `MemoryPressure`.
    pub memory: Option<String>,
    /// Condition `DiskPressure`: bytes or inodes, of the node's or the images' file system.
    pub disk: Option<String>,
    /// Condition `PIDPressure`.
    pub pids: Option<String>,
}

impl Pressures {
    /// Compares `measured` with `thresholds`.
    pub fn of(measured: &Measurements, thresholds: &EvictionThresholds) -> Self {
        let EvictionThresholds { memory_available, nodefs_available, nodefs_inodes_free, .. } = *thresholds;
        let EvictionThresholds { imagefs_available, imagefs_inodes_free, pid_available, .. } = *thresholds;
        let memory = measured.memory.and_then(|memory| {
            shortage("memory.available", memory.available_bytes, memory.size_bytes, memory_available)
        });
        let node_files =
            measured.node_files.and_then(|files| files.shortage("nodefs", nodefs_available, nodefs_inodes_free));
        let image_files =
            || measured.image_files.and_then(|files| files.shortage("imagefs", imagefs_available, imagefs_inodes_free));
        let pids = measured.processes.and_then(|processes| {
            let available = processes.limit.saturating_sub(processes.running);
            shortage("pid.available", available, processes.limit, pid_available)
        });
        Self { memory, disk: node_files.or_else(image_files), pids }
    }
}

impl FileSystem {
    fn shortage(self, name: &str, available: Threshold, inodes_free: Threshold) -> Option<String> {
        let space = shortage(&format!("{name}.available"), self.available_bytes, self.size_bytes, available);
        let has_inodes = self.inodes != 0;
        space.or_else(|| {
            has_inodes
                .then(|| shortage(&format!("{name}.inodesFree"), self.inodes_free, self.inodes, inodes_free))
                .flatten()
        })
    }
}

fn shortage(signal: &str, available: u64, whole: u64, threshold: Threshold) -> Option<String> {
    threshold.is_crossed(available, whole).then(|| format!("{signal} is {available} of {whole}, less than {threshold}"))
}

/// A pressure stays this long after it was last measured, as the kubelet's `evictionPressureTransitionPeriod`: a node
/// on the edge does not take pods and evict them in turn.
const TRANSITION_PERIOD: Duration = Duration::from_secs(300);

/// The pressures that were measured lately.
#[derive(Clone, Debug, Default)]
pub struct PressureHistory {
    memory: Option<(Instant, String)>,
    disk: Option<(Instant, String)>,
    pids: Option<(Instant, String)>,
}

impl PressureHistory {
    /// Takes in what was measured at `now`, and returns what the conditions should say.
    pub fn add(&mut self, measured: Pressures, now: Instant) -> Pressures {
        Pressures {
            memory: remember(&mut self.memory, measured.memory, now),
            disk: remember(&mut self.disk, measured.disk, now),
            pids: remember(&mut self.pids, measured.pids, now),
        }
    }
}

fn remember(last: &mut Option<(Instant, String)>, measured: Option<String>, now: Instant) -> Option<String> {
    match (measured, last.as_ref()) {
        // The first message stays while the pressure does: figures that move would rewrite the Node at every
        // measurement.
        (Some(_), Some((_, message))) => *last = Some((now, message.clone())),
        (Some(message), None) => *last = Some((now, message)),
        (None, Some((at, _))) if now.saturating_duration_since(*at) >= TRANSITION_PERIOD => *last = None,
        (None, _) => {}
    }
    last.as_ref().map(|(_, message)| message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GI: u64 = 1 << 30;

    fn files(available_percent: u64, inodes_free_percent: u64) -> Option<FileSystem> {
        let (size_bytes, inodes) = (100 * GI, 1_000_000);
        let available_bytes = size_bytes / 100 * available_percent;
        Some(FileSystem { size_bytes, available_bytes, inodes, inodes_free: inodes / 100 * inodes_free_percent })
    }

    fn healthy() -> Measurements {
        Measurements {
            memory: Some(Memory { size_bytes: 16 * GI, available_bytes: GI }),
            node_files: files(50, 50),
            image_files: files(50, 50),
            processes: Some(Processes { running: 500, limit: 32768 }),
        }
    }

    fn pressures(measured: Measurements) -> Pressures {
        Pressures::of(&measured, &EvictionThresholds::default())
    }

    #[test]
    fn a_healthy_machine_is_under_no_pressure_and_one_that_cannot_be_measured_neither() {
        assert_eq!(pressures(healthy()), Pressures::default());
        assert_eq!(pressures(Measurements::default()), Pressures::default());
    }

    #[test]
    fn each_default_threshold_of_the_kubelet_is_a_pressure_just_below_it() {
        let memory = |available_bytes| {
            let memory = Some(Memory { size_bytes: 16 * GI, available_bytes });
            pressures(Measurements { memory, ..healthy() }).memory
        };
        assert_eq!(memory(100 << 20), None);
        assert_eq!(memory(104857599).unwrap(), "memory.available is 104857599 of 17179869184, less than 100Mi");
        let node = |space, inodes| pressures(Measurements { node_files: files(space, inodes), ..healthy() }).disk;
        assert_eq!((node(10, 50), node(50, 5)), (None, None));
        assert!(node(9, 50).unwrap().ends_with("of 107374182400, less than 10%"));
        assert_eq!(node(50, 4).unwrap(), "nodefs.inodesFree is 40000 of 1000000, less than 5%");
        let image = |space| pressures(Measurements { image_files: files(space, 50), ..healthy() }).disk;
        assert_eq!(image(15), None);
        assert!(image(14).unwrap().starts_with("imagefs.available"));
        let pids = |running| {
            let processes = Some(Processes { running, limit: 1000 });
            pressures(Measurements { processes, ..healthy() }).pids
        };
        assert_eq!(pids(950), None);
        assert!(pids(951).is_some() && pids(2000).is_some(), "more than the limit is none left");
    }

    #[test]
    fn a_threshold_of_zero_is_never_crossed() {
        let thresholds = "nodefs.available<0%,nodefs.inodesFree<0".parse().unwrap();
        let full = Measurements { node_files: files(0, 0), ..healthy() };
        assert!(pressures(full.clone()).disk.is_some());
        assert_eq!(Pressures::of(&full, &thresholds), Pressures::default());
    }

    #[test]
    fn a_file_system_without_a_fixed_number_of_inodes_is_not_short_of_them() {
        let node_files = Some(FileSystem { inodes: 0, inodes_free: 0, ..files(50, 50).unwrap() });
        assert_eq!(pressures(Measurements { node_files, ..healthy() }).disk, None);
    }

    #[test]
    fn a_pressure_stays_for_five_minutes_after_it_was_last_measured() {
        let (mut history, start) = (PressureHistory::default(), Instant::now());
        let short = |text: &str| Pressures { memory: Some(text.into()), ..Pressures::default() };
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(history.add(short("99 Mi"), start), short("99 Mi"));
        assert_eq!(history.add(short("98 Mi"), at(10)), short("99 Mi"), "the figure that began it stays");
        assert_eq!(history.add(Pressures::default(), at(309)), short("99 Mi"));
        assert_eq!(history.add(Pressures::default(), at(310)), Pressures::default());
    }
}
