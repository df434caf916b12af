//! Three-way merge: from what was applied last, what is applied now and what the server holds, the patch that brings
//! the second about without touching what others have set. Pure; the same outcome as kubectl's, so that both can be
//! used on one object.

#[cfg(test)]
mod agreement;
mod last_applied;
mod strategy;
mod three_way;

pub use last_applied::{LAST_APPLIED, original, with_last_applied};
pub use three_way::{Schema, three_way};
