//! What measurements of this machine mean for the conditions of its Node, by the kubelet's default eviction thresholds. Pure.

use std::time::{Duration, Instant};

/// What the machine has at one moment. What could not be measured is `None`, and is no pressure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurements {
    /// Memory that can be had without swapping: `MemAvailable`.
    pub memory_available_bytes: Option<u64>,
    /// The file system of the data directory: volumes and logs.
    pub node_files: Option<FileSystem>,
    /// The file system of the runtime's images, where that is another.
    pub image_files: Option<FileSystem>,
    pub processes: Option<Processes>,
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    pub size_bytes: u64,
    pub available_bytes: u64,
    /// 0 where the file system makes inodes as it needs them.
    pub inodes: u64,
    pub inodes_free: u64,
}

/// Tasks of the kernel, which process ids limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processes {
    pub running: u64,
    pub limit: u64,
}

/// Which resources are short, with what was measured. `None`: enough is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressures {
    pub memory: Option<String>,
    pub disk: Option<String>,
    pub pids: Option<String>,
}

/// The kubelet's default `evictionHard`: `memory.available<100Mi`, `nodefs.available<10%`, `nodefs.inodesFree<5%`,
/// `imagefs.available<15%`, `imagefs.inodesFree<5%`.
const MEMORY_AVAILABLE_BYTES: u64 = 100 << 20;
const NODE_FILES_AVAILABLE_PERCENT: u64 = 10;
const IMAGE_FILES_AVAILABLE_PERCENT: u64 = 15;
const INODES_FREE_PERCENT: u64 = 5;
/// The kubelet has no default for `pid.available`. At fewer than these, a host's own services begin to fail to fork.
const PIDS_AVAILABLE_PERCENT: u64 = 5;

impl Pressures {
    /// Compares `measured` with the thresholds.
    pub fn of(measured: &Measurements) -> Self {
        let memory = measured.memory_available_bytes.filter(|available| *available < MEMORY_AVAILABLE_BYTES);
        let node_files = measured.node_files.and_then(|files| files.shortage("nodefs", NODE_FILES_AVAILABLE_PERCENT));
        let image_files =
            || measured.image_files.and_then(|files| files.shortage("imagefs", IMAGE_FILES_AVAILABLE_PERCENT));
        Self {
            memory: memory.map(|available| format!("memory.available is {} Mi, less than 100 Mi", available >> 20)),
            disk: node_files.or_else(image_files),
            pids: measured.processes.and_then(Processes::shortage),
        }
    }
}

impl FileSystem {
    fn shortage(self, name: &str, available_percent: u64) -> Option<String> {
        let below = |part: u64, whole: u64, percent: u64| whole != 0 && is_below(part, whole, percent);
        if below(self.available_bytes, self.size_bytes, available_percent) {
            let (available, size) = (self.available_bytes >> 20, self.size_bytes >> 20);
            return Some(format!("{name}.available is {available} of {size} Mi, less than {available_percent} %"));
        }
        below(self.inodes_free, self.inodes, INODES_FREE_PERCENT).then(|| {
            let (free, inodes) = (self.inodes_free, self.inodes);
            format!("{name}.inodesFree is {free} of {inodes}, less than {INODES_FREE_PERCENT} %")
        })
    }
}

impl Processes {
    fn shortage(self) -> Option<String> {
        let available = self.limit.saturating_sub(self.running);
        is_below(available, self.limit, PIDS_AVAILABLE_PERCENT)
            .then(|| format!("pid.available is {available} of {}, less than {PIDS_AVAILABLE_PERCENT} %", self.limit))
    }
}

fn is_below(part: u64, whole: u64, percent: u64) -> bool {
    u128::from(part) * 100 < u128::from(whole) * u128::from(percent)
}

/// A pressure stays this long after it was last measured, as the kubelet's `evictionPressureTransitionPeriod`: a node on the edge
/// does not take pods and evict them in turn.
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
        // The first message stays while the pressure does: figures that move would rewrite the Node at every measurement.
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
            memory_available_bytes: Some(GI),
            node_files: files(50, 50),
            image_files: files(50, 50),
            processes: Some(Processes { running: 500, limit: 32768 }),
        }
    }

    #[test]
    fn a_healthy_machine_is_under_no_pressure_and_one_that_cannot_be_measured_neither() {
        assert_eq!(Pressures::of(&healthy()), Pressures::default());
        assert_eq!(Pressures::of(&Measurements::default()), Pressures::default());
    }

    #[test]
    fn each_threshold_of_the_kubelet_is_a_pressure_just_below_it() {
        let memory = |bytes| Pressures::of(&Measurements { memory_available_bytes: Some(bytes), ..healthy() }).memory;
        assert_eq!(memory(100 << 20), None);
        assert_eq!(memory((100 << 20) - 1).unwrap(), "memory.available is 99 Mi, less than 100 Mi");
        let node = |space, inodes| Pressures::of(&Measurements { node_files: files(space, inodes), ..healthy() }).disk;
        assert_eq!((node(10, 50), node(50, 5)), (None, None));
        assert_eq!(node(9, 50).unwrap(), "nodefs.available is 9216 of 102400 Mi, less than 10 %");
        assert_eq!(node(50, 4).unwrap(), "nodefs.inodesFree is 40000 of 1000000, less than 5 %");
        let image = |space| Pressures::of(&Measurements { image_files: files(space, 50), ..healthy() }).disk;
        assert_eq!(image(15), None);
        assert!(image(14).unwrap().starts_with("imagefs.available"));
        let pids = |running| {
            let processes = Some(Processes { running, limit: 1000 });
            Pressures::of(&Measurements { processes, ..healthy() }).pids
        };
        assert_eq!(pids(950), None);
        assert!(pids(951).is_some() && pids(2000).is_some(), "more than the limit is none left");
    }

    #[test]
    fn a_file_system_without_a_fixed_number_of_inodes_is_not_short_of_them() {
        let node_files = Some(FileSystem { inodes: 0, inodes_free: 0, ..files(50, 50).unwrap() });
        assert_eq!(Pressures::of(&Measurements { node_files, ..healthy() }).disk, None);
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
