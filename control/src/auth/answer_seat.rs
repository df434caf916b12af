//! How long an answer keeps its request's seat.
//!
//! One that is there gives it back at once, and one that is made while it is sent when it has been made: until then it
//! takes time of the processor, for which others wait in their turn. But nobody's turn depends on how fast a client
//! reads: who has the server wait for long loses the seat, and has the rest of the answer without one.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::flow_control::seat::Seat;

/// For how long a client may have the server wait in all while an answer is made.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// What is shorter is no wait for the client: others had the processor, or the network took what it had.
const NO_WAIT: Duration = Duration::from_millis(10);

/// The seat of an answer that is being sent.
#[derive(Debug)]
pub enum AnswerSeat {
    /// It is kept until all is sent: there was no memory for it, or nobody waits for seats.
    UntilSent {
        /// Given back when it is dropped.
        _seat: Arc<Seat>,
    },
    /// It is kept until all is made.
    UntilMade(Arc<Seat>, ClientWaits),
}

/// How long a client has had the server wait.
#[derive(Clone, Copy, Debug)]
pub struct ClientWaits {
    before: Duration,
    /// Since when it has what was made last; `None` while more is made.
    since: Option<Instant>,
}

impl AnswerSeat {
    /// Of an answer that is there.
    pub fn until_sent(seat: Arc<Seat>) -> Self {
        Self::UntilSent { _seat: seat }
    }

    /// Of an answer that is made from now on.
    pub fn until_made(seat: Arc<Seat>) -> Self {
        Self::UntilMade(seat, ClientWaits::begin(Instant::now()))
    }

    /// The client takes more.
    pub fn wait_ends(&mut self, now: Instant) {
        if let Self::UntilMade(_, waits) = self {
            waits.end(now);
        }
    }

    /// The client has a piece. Gives the seat back where it was the last one, or the client is too slow.
    pub fn wait_begins(&mut self, now: Instant, is_made: bool) {
        if let Self::UntilMade(_, waits) = self {
            waits.since = Some(now);
            if is_made || waits.left(now).is_none() {
                self.answer_is_made();
            }
        }
    }

    /// When to look again at one that is being made. Gives the seat back where the client is too slow.
    pub fn check(&mut self, now: Instant) -> Option<Instant> {
        let Self::UntilMade(_, waits) = self else { return None };
        match waits.left(now) {
            // It is not looked at all the time.
            Some(left) => now.checked_add(left.max(NO_WAIT)),
            None => {
                self.answer_is_made();
                None
            }
        }
    }

    fn answer_is_made(&mut self) {
        if let Self::UntilMade(seat, _) = self {
            seat.answer_is_made();
            *self = Self::until_sent(seat.clone());
        }
    }
}

impl ClientWaits {
    fn begin(now: Instant) -> Self {
        Self { before: Duration::ZERO, since: Some(now) }
    }

    fn end(&mut self, now: Instant) {
        self.before = self.so_far(now);
        self.since = None;
    }

    fn so_far(&self, now: Instant) -> Duration {
        let this = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if this < NO_WAIT { self.before } else { self.before.saturating_add(this) }
    }

    /// For how long it may go on; `None` once that is over.
    fn left(&self, now: Instant) -> Option<Duration> {
        PATIENCE.checked_sub(self.so_far(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_waits_for_a_client_count_and_their_sum_is_bounded() {
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let mut waits = ClientWaits::begin(begun);
        assert_eq!(waits.left(at(5)), Some(PATIENCE));
        assert_eq!(waits.left(at(400)), Some(Duration::from_millis(600)));
        waits.end(at(400));
        assert_eq!(waits.left(at(5000)), Some(Duration::from_millis(600)), "what is made takes its time");
        for wait in 0..10_000 {
            waits.since = Some(at(5000 + wait * 9));
            waits.end(at(5000 + wait * 9 + 9));
        }
        assert_eq!(waits.left(at(100_000)), Some(Duration::from_millis(600)));
        waits.since = Some(at(100_000));
        assert_eq!(waits.left(at(100_599)), Some(Duration::from_millis(1)));
        assert_eq!(waits.left(at(100_600)), None);
    }
}
