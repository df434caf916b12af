//! How long an answer keeps its request's seat.
//!
//! One that is there gives it back at once, and one that is made while it is sent when it has been made: until then it
//! takes time of the processor, for which others wait in their turn. But nobody's turn depends on how fast a client
//! reads: who has the server wait for long loses the seat, and has the rest of the answer without one. One for which
//! there was no memory cannot go on without: the seat is what bounds such answers, so that it is cut off. Kubernetes'
//! requests keep their seats for as long as they may last.
//!
//! Each wait counts in full. Short ones have a limit of their own, since they may be none for the client: where many
//! answers are made at once each waits for the processor between two pieces, and gave all of them their seats back for
//! that, the server would take in even more. So a client that reads in drips keeps its seat for some seconds longer.
//! No answer is cut off for short waits: a piece in each of them is as fast as a network may be.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::flow_control::seat::Seat;

/// For how long a client may have the server wait in all while an answer is made, in waits that are not short.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is shorter may be no wait for the client: others had the processor, or the network took what it had.
const SHORT_WAIT: Duration = Duration::from_millis(10);
/// For how long a client may have the server wait in all and the answer keeps its seat, however short each wait was.
/// Chosen, not measured, as the next one.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(10);
/// For how long a client may have the server wait in all for an answer without memory, in waits that are not short.
const PATIENCE_WITHOUT_MEMORY: Duration = Duration::from_secs(10);

/// The seat of an answer that is being sent.
#[derive(Debug)]
pub enum AnswerSeat {
    /// It is kept until all is sent: nobody waits for seats.
    UntilSent {
        /// Given back when it is dropped.
        _seat: Arc<Seat>,
    },
    /// It is kept until all is made.
    UntilMade(Arc<Seat>, ClientWaits),
    /// It is kept until all is sent: there was no memory for the answer.
    Overdrawn {
        /// Given back when it is dropped.
        _seat: Arc<Seat>,
        /// How long that may take.
        waits: ClientWaits,
    },
}

/// How long a client has had the server wait.
#[derive(Clone, Copy, Debug)]
pub struct ClientWaits {
    before: Waited,
    /// Since when it has what was made last; `None` while more is made.
    since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waited {
    in_all: Duration,
    /// In waits that were not short.
    for_long: Duration,
}

/// What is to be done about an answer whose client may be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextCheck {
    /// It is looked at again.
    At(Instant),
    /// It may go on as it likes.
    Never,
    /// It is cut off.
    CutOff,
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

    /// Of an answer for which there was no memory.
    pub fn overdrawn(seat: Arc<Seat>) -> Self {
        Self::Overdrawn { _seat: seat, waits: ClientWaits::begin(Instant::now()) }
    }

    /// After what time to look at the answer first, if it is to be looked at.
    pub fn first_check(&self) -> Option<Duration> {
        match self {
            Self::UntilSent { .. } => None,
            Self::UntilMade(..) => Some(PATIENCE),
            Self::Overdrawn { .. } => Some(PATIENCE_WITHOUT_MEMORY),
        }
    }

    /// The client takes more.
    pub fn wait_ends(&mut self, now: Instant) {
        if let Self::UntilMade(_, waits) | Self::Overdrawn { waits, .. } = self {
            waits.end(now);
        }
    }

    /// The client has a piece. Gives the seat back where it was the last one, or the client is too slow.
    pub fn wait_begins(&mut self, now: Instant, is_made: bool) {
        match self {
            Self::UntilSent { .. } => {}
            Self::UntilMade(_, waits) => {
                waits.since = Some(now);
                if is_made || waits.left_for_seat(now).is_none() {
                    self.answer_is_made();
                }
            }
            Self::Overdrawn { waits, .. } => waits.since = Some(now),
        }
    }

    /// Looks at an answer that is being sent. Gives the seat back where the client is too slow.
    pub fn check(&mut self, now: Instant) -> NextCheck {
        // It is not looked at all the time.
        let after = |left: Duration| now.checked_add(left.max(SHORT_WAIT)).map_or(NextCheck::Never, NextCheck::At);
        match self {
            Self::UntilSent { .. } => NextCheck::Never,
            Self::UntilMade(_, waits) => match waits.left_for_seat(now) {
                Some(left) => after(left),
                None => {
                    self.answer_is_made();
                    NextCheck::Never
                }
            },
            Self::Overdrawn { waits, .. } => waits.left_without_memory(now).map_or(NextCheck::CutOff, after),
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
        Self { before: Waited::default(), since: Some(now) }
    }

    fn end(&mut self, now: Instant) {
        self.before = self.so_far(now);
        self.since = None;
    }

    fn so_far(&self, now: Instant) -> Waited {
        let this = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let for_long = if this < SHORT_WAIT { Duration::ZERO } else { this };
        Waited {
            in_all: self.before.in_all.saturating_add(this),
            for_long: self.before.for_long.saturating_add(for_long),
        }
    }

    /// For how long it may go on at least and the answer keeps its seat; `None` once that is over.
    fn left_for_seat(&self, now: Instant) -> Option<Duration> {
        let waited = self.so_far(now);
        Some(left(PATIENCE, waited.for_long)?.min(left(PATIENCE_IN_ALL, waited.in_all)?))
    }

    /// For how long it may go on at least without memory; `None` once that is over.
    fn left_without_memory(&self, now: Instant) -> Option<Duration> {
        left(PATIENCE_WITHOUT_MEMORY, self.so_far(now).for_long)
    }
}

fn left(of: Duration, waited: Duration) -> Option<Duration> {
    of.checked_sub(waited).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(9);

    /// The sum of so many short waits that follow one another at once.
    fn drip(waits: &mut ClientWaits, from: Instant, times: u32) -> Instant {
        (0..times).fold(from, |begun, _| {
            waits.since = Some(begun);
            waits.end(begun + SHORT);
            begun + SHORT
        })
    }

    #[test]
    fn waits_for_a_client_count_and_those_for_what_is_made_do_not() {
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let mut waits = ClientWaits::begin(begun);
        assert_eq!(waits.left_for_seat(at(5)), Some(PATIENCE));
        assert_eq!(waits.left_for_seat(at(400)), Some(Duration::from_millis(600)));
        waits.end(at(400));
        assert_eq!(waits.left_for_seat(at(5000)), Some(Duration::from_millis(600)), "what is made takes its time");
        waits.since = Some(at(100_000));
        assert_eq!(waits.left_for_seat(at(100_599)), Some(Duration::from_millis(1)));
        assert_eq!(waits.left_for_seat(at(100_600)), None);
    }

    #[test]
    fn short_waits_count_in_full_and_their_sum_costs_the_seat() {
        let begun = Instant::now();
        let mut waits = ClientWaits::begin(begun);
        // As long as the processor may take between the pieces of a large answer.
        let now = drip(&mut waits, begun, 1000);
        assert_eq!(waits.left_for_seat(now), Some(Duration::from_secs(1)));
        let now = drip(&mut waits, now, 100);
        assert_eq!(waits.left_for_seat(now), Some(Duration::from_millis(100)));
        // A long one takes of both.
        waits.since = Some(now);
        assert_eq!(waits.left_for_seat(now + Duration::from_millis(40)), Some(Duration::from_millis(60)));
        let now = drip(&mut waits, now, 12);
        assert_eq!(waits.left_for_seat(now), None);
        let now = drip(&mut waits, now, 100_000);
        assert_eq!(waits.left_for_seat(now), None, "for good");
        assert_eq!(waits.left_without_memory(now), Some(PATIENCE_WITHOUT_MEMORY), "a fast one is not cut off");
        waits.since = Some(now);
        assert_eq!(waits.left_without_memory(now + PATIENCE_WITHOUT_MEMORY), None);
    }
}
