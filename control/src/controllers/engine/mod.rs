//! What all controllers share: one watch a kind, a queue that works each key once, and the tasks that drain it.
//!
//! A controller is `informers → queue of keys → plan (pure) → requests`. Nothing here knows a kind by name, and nothing
//! polls: a key is worked on when a watch event names it or when its own timer is due.

mod correlate;
mod informer;
mod key;
mod queue;
mod recorder;
mod startup;
mod work;

pub use correlate::{Correlator, Verdict};
pub use informer::{Change, Informer};
pub use key::Key;
pub use queue::WorkQueue;
pub use recorder::{EventType, Recorder, reference};
pub use startup::Startup;
pub use work::{Failure, Outcome, Tasks, api_code, is_gone_or_taken, work};
