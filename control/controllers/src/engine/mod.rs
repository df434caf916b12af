//! What the controllers and the scheduler share: one watch per kind, a queue that works on each key once, and
//! supervised tasks.
//!
//! A controller is `informers → queue of keys → plan (pure) → requests`. Nothing here knows a kind by name, and nothing
//! polls: a key is worked on when a watch event enqueues it or when its own timer is due.
//!
//! - `watch`: the list-then-watch loop; [`Informer`] keeps what it shows, with handlers and indexes
//! - `queue`: keys that wait, their `timers` and back-off; `work` drains it; `startup` ties informers, queue and worker
//!   together
//! - `tasks`: supervised tasks; `deadline`: moments that cannot overflow; `histogram`: durations counted for `/metrics`
//! - `recorder` writes Events

mod deadline;
mod histogram;
mod informer;
mod key;
mod queue;
mod recorder;
mod startup;
mod tasks;
mod timers;
pub mod watch;
mod work;

pub use deadline::Deadline;
pub use histogram::{AtomicHistogram, BOUNDS as HISTOGRAM_BOUNDS, HistogramSnapshot};
pub use informer::{Informer, ObjectChange, Synced};
pub use key::Key;
pub use queue::{QueueStats, Taken, WorkQueue};
pub use recorder::{EventType, Recorder, reference, start_recorder};
pub use startup::Startup;
pub use tasks::Tasks;
pub use work::{Failure, Outcome, api_code, is_gone_or_taken, is_namespace_terminating, unless_gone, work};
