//! What is configured of a level's seats and queues.

/// Queues of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    /// How many there are.
    pub queues: usize,
    /// How many a flow may use.
    pub hand_size: usize,
    /// How many requests wait in one.
    pub queue_length_limit: usize,
}

/// How many seats a level has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatLimit {
    /// As many as are asked for.
    Exempt,
    /// So many.
    Seats(usize),
}
