//! How fast events may be written: a bucket of tokens.

use std::time::Duration;

use tokio::time::Instant;

/// How many events may be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// In one go.
    pub burst: f64,
    /// Each second after that.
    pub per_second: f64,
}

/// A bucket that a [`Rate`] fills.
pub(super) struct Pace {
    rate: Rate,
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: rate.burst, at: now }
    }

    /// When the next event may be written.
    pub fn next(&self, now: Instant) -> Instant {
        let missing = 1.0 - self.tokens_at(now);
        if missing <= 0.0 {
            return now;
        }
        let wait = Duration::try_from_secs_f64(missing / self.rate.per_second).unwrap_or(LONGEST);
        now.checked_add(wait).unwrap_or(now)
    }

    /// An event is written at `now`.
    pub fn take_token(&mut self, now: Instant) {
        self.tokens = self.tokens_at(now) - 1.0;
        self.at = now;
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        (self.tokens + now.duration_since(self.at).as_secs_f64() * self.rate.per_second).min(self.rate.burst)
    }
}

/// Where a rate is so low that its wait cannot be counted.
const LONGEST: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_its_pace() {
        let now = Instant::now();
        let mut pace = Pace::new(Rate { burst: 500.0, per_second: 300.0 }, now);
        for _ in 0..500 {
            assert_eq!(pace.next(now), now);
            pace.take_token(now);
        }
        let next = pace.next(now);
        assert!(next > now && next < now + Duration::from_millis(5));
        assert_eq!(pace.next(next + Duration::from_millis(1)), next + Duration::from_millis(1));
    }
}
