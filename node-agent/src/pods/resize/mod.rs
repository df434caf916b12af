//! Resizing pods in place: a running pod's CPU and memory change without a new pod (KEP-1287).
//!
//! ```text
//! Pod in the API ──► Ledger: does it fit? ──► allocated ──► steps ──► runtime ──► actuated
//!   (desired)            └─ no: Deferred or Infeasible
//! ```
//!
//! Glossary:
//! - **desired**: the resources that the Pod asks for in the API.
//! - **allocated**: those that the node has granted it. Everything but the ledger works with the allocated pod: the
//!   plan, new containers, the status.
//! - **actuated**: those that a container was created with, or that the runtime has set since.
//! - **deferred**: does not fit now, and is granted when other pods leave or shrink; **infeasible**: never fits.
//!
//! Files: `amounts.rs` CPU and memory as numbers, `ledger.rs` what the node's pods hold, who is admitted and who may
//! grow, `allocations.rs` the one ledger of a node and its form on disk, `steps.rs` from actuated to allocated,
//! `events.rs` what is told of it. `act/resize.rs` performs the steps, `status/resize.rs` reports them.
//!
//! Source: `pkg/kubelet/allocation` and `computePodResizeAction` of the kubelet.

mod allocations;
mod amounts;
mod events;
mod ledger;
mod steps;

pub use allocations::{Allocations, KeptAllocations};
pub use amounts::{Amounts, Requests};
pub use events::{Shown, events};
pub use ledger::{Allocation, Capacity, Pending, PodGrant, Shortage};
pub use steps::{ResizedResource, Update, in_progress, steps};

use jiff::Timestamp;

use super::state::Retry;

/// What the worker of a pod knows of its resizes.
#[derive(Clone, Debug, Default)]
pub struct Resize {
    /// Why the desired resources are not allocated.
    pub pending: Option<Pending>,
    /// The generation of the Pod whose resources were allocated last, while they are being actuated.
    pub generation: Option<i64>,
    /// The updates of running containers.
    pub progress: Progress,
}

/// Updates of running containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// None is under way.
    #[default]
    Idle,
    /// The runtime is being asked for them; `earlier` is how they failed the last time.
    UnderWay { updates: Vec<Update>, earlier: Option<Retry> },
    /// One of them failed; they are tried again, and others at once.
    Failed { updates: Vec<Update>, retry: Retry },
}

impl Resize {
    /// When `updates` may begin; `None` while some are under way.
    pub fn may_begin_at(&self, updates: &[Update]) -> Option<Timestamp> {
        match &self.progress {
            Progress::UnderWay { .. } => None,
            Progress::Failed { updates: failed, retry } if failed == updates => Some(retry.at),
            Progress::Idle | Progress::Failed { .. } => Some(Timestamp::MIN),
        }
    }

    /// Why the latest updates failed.
    pub fn error(&self) -> Option<&str> {
        match &self.progress {
            Progress::Failed { retry, .. } | Progress::UnderWay { earlier: Some(retry), .. } => {
                Some(&retry.failure.message)
            }
            Progress::Idle | Progress::UnderWay { earlier: None, .. } => None,
        }
    }

    /// Notes that `updates` are under way.
    pub fn begin(&mut self, updates: &[Update]) {
        let earlier = match std::mem::take(&mut self.progress) {
            Progress::Failed { updates: failed, retry } if failed == updates => Some(retry),
            _ => None,
        };
        self.progress = Progress::UnderWay { updates: updates.to_vec(), earlier };
    }

    /// Notes that those under way have ended; `retry` says when they are tried again.
    pub fn end(&mut self, retry: Option<Retry>) {
        self.progress = match (std::mem::take(&mut self.progress), retry) {
            (Progress::UnderWay { updates, .. }, Some(retry)) => Progress::Failed { updates, retry },
            _ => Progress::Idle,
        };
    }
}
