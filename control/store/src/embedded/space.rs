//! Which changes make space on a full disk, sooner or later: a deletion, or a step on the way to one. They go first, and
//! may use what the log keeps for them.

use crate::{Change, Event, EventType, Write};

/// Whether a change that is decided makes space.
pub fn frees(event: &Event) -> bool {
    match event.event_type {
        EventType::Added => false,
        EventType::Modified => event.object.header().deleting(),
        EventType::Deleted => true,
    }
}

/// Whether a write will, as far as it can be told before the batch that it waits for is decided.
pub fn will_free(write: &Write) -> bool {
    match &write.change {
        Change::Delete => true,
        Change::Put(draft) => draft.header.get().deleting(),
        Change::Amend(_) => false,
    }
}
