//! How long to wait before trying again: 10 s, doubled at each failure up to 5 min, forgotten after 10 min without one.

use jiff::{SignedDuration, Timestamp};

/// The wait of one thing that keeps failing. The first retry is immediate, as the kubelet's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    delay: SignedDuration,
    advanced_at: Timestamp,
}

impl Backoff {
    /// The wait before the second retry; the first is immediate.
    pub const FIRST: SignedDuration = SignedDuration::from_secs(10);
    /// The longest wait.
    pub const LIMIT: SignedDuration = SignedDuration::from_secs(300);

    /// The wait that applies to a failure at `failed_at`.
    pub fn delay(&self, failed_at: Timestamp) -> SignedDuration {
        if self.is_stale(failed_at) { SignedDuration::ZERO } else { self.delay }
    }

    /// When what failed at `failed_at` may be tried again.
    pub fn retry_at(&self, failed_at: Timestamp) -> Timestamp {
        failed_at.saturating_add(self.delay(failed_at)).unwrap_or(Timestamp::MAX)
    }

    /// Called as a retry begins, or as a failure becomes known: the next wait is longer.
    pub fn advance(&mut self, failed_at: Timestamp, now: Timestamp) {
        self.delay = match self.delay(failed_at) {
            SignedDuration::ZERO => Self::FIRST,
            delay => (delay * 2).min(Self::LIMIT),
        };
        self.advanced_at = now;
    }

    fn is_stale(&self, at: Timestamp) -> bool {
        at.duration_since(self.advanced_at) > Self::LIMIT * 2
    }
}

/// Whether what waits until `at` may be tried again. No wait is longer than [`Backoff::LIMIT`]: one that seems to be
/// means that the clock was set back, and the wait began at a time that does not come again for long.
pub fn is_over(at: Timestamp, now: Timestamp) -> bool {
    at <= now || at.duration_since(now) > Backoff::LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn the_wait_doubles_from_ten_seconds_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(backoff.delay(at(0)).as_secs());
            backoff.advance(at(0), at(0));
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_wait_is_over_in_time_and_when_the_clock_is_set_back() {
        let until = Backoff { delay: Backoff::LIMIT, advanced_at: at(0) }.retry_at(at(0));
        assert!(!is_over(until, at(0)) && !is_over(until, at(299)) && is_over(until, at(300)));
        assert!(is_over(until, at(-86_400)), "it would last for a day");
    }

    #[test]
    fn ten_good_minutes_forget_the_failures() {
        let mut backoff = Backoff::default();
        backoff.advance(at(0), at(0));
        backoff.advance(at(0), at(0));
        assert_eq!(backoff.retry_at(at(600)), at(620));
        assert_eq!(backoff.retry_at(at(601)), at(601));
    }
}
