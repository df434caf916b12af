//! Moments that lie a while ahead, whatever the while: what comes from outside may be too long for the clock.

use std::time::Duration;

use tokio::time::Instant;

/// As far ahead as anything is planned.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// `after` from `now`, or thirty years from now where that is sooner.
pub fn later(now: Instant, after: Duration) -> Instant {
    now.checked_add(after.min(FAR)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_duration_is_too_long() {
        let now = Instant::now();
        assert_eq!(later(now, Duration::from_secs(1)).duration_since(now), Duration::from_secs(1));
        assert_eq!(later(now, Duration::MAX).duration_since(now), FAR);
    }
}
