//! Maps in memory for tests: they keep every write, and can fail.

use super::{BpfMaps, MapError, map_of};
use crate::proxy::image::{Held, Op};

/// Maps in memory that record each write, and fail when their budget is used up.
#[derive(Debug, Default)]
pub struct RecordingMaps {
    /// What the maps contain.
    pub held: Held,
    /// All operations that succeeded, in order.
    pub written: Vec<Op>,
    /// Writes that still succeed; `None` is all.
    pub budget: Option<usize>,
}

impl BpfMaps for RecordingMaps {
    fn read(&self) -> Result<Held, MapError> {
        Ok(self.held.clone())
    }

    fn apply(&mut self, op: &Op) -> Result<(), MapError> {
        if let Some(left) = &mut self.budget {
            let (map, limit) = map_of(op);
            *left = left.checked_sub(1).ok_or(MapError::Full { map, limit })?;
        }
        self.held.record(op);
        self.written.push(*op);
        Ok(())
    }
}
