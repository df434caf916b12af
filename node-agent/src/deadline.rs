//! Points in time that lie a given wait ahead. Waits that come from Pods may be any number: these saturate where
//! `+` would panic.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// `wait` after `now`; decades ahead where that is more than can be counted.
pub fn instant_after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(LONGEST)).unwrap_or(now)
}

/// `wait` after `now`; the largest representable time where that overflows.
pub fn timestamp_after(now: Timestamp, wait: Duration) -> Timestamp {
    now.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// A number of seconds from a Pod as a wait: none where it is negative.
pub fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// Thirty years, as tokio's own: timers round up, so a wait must stay clear of what an `Instant` can hold.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_is_too_long_to_be_counted() {
        let (instant, timestamp) = (Instant::now(), Timestamp::now());
        for wait in [Duration::MAX, seconds(i64::MAX), Duration::from_secs(u64::MAX)] {
            assert!(instant_after(instant, wait) > instant);
            assert_eq!(timestamp_after(timestamp, wait), Timestamp::MAX);
        }
        assert_eq!(seconds(i64::MIN), Duration::ZERO);
        assert_eq!(instant_after(instant, seconds(3)), instant + Duration::from_secs(3));
    }
}
