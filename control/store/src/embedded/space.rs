//! Which transactions make space on a full disk, sooner or later: those that delete an object, or take a step on the
//! way to that, and add none. They go first, and may use what the log keeps for them. What else such a transaction
//! writes, as the count of a quota, belongs to the deletion.

use crate::{Change, Event, EventType, Expect, Transaction};

/// Whether a transaction that is decided makes space. One that changed nothing takes none.
pub fn frees(events: &[Event]) -> bool {
    let frees = |event: &Event| match event.event_type {
        EventType::Added => false,
        EventType::Modified => event.object.header().deleting(),
        EventType::Deleted => true,
    };
    events.is_empty() || events.iter().any(frees) && events.iter().all(|event| event.event_type != EventType::Added)
}

/// Whether a transaction will, as far as it can be told before the batch that it waits for is decided.
pub fn will_free(transaction: &Transaction) -> bool {
    let frees = |change: &Change| match change {
        Change::Delete => true,
        Change::Put(draft) => draft.header.get().deleting(),
        Change::Amend(_) => false,
    };
    let writes = &transaction.writes;
    writes.is_empty()
        || writes.iter().any(|write| frees(&write.change)) && writes.iter().all(|write| write.expect != Expect::Absent)
}
