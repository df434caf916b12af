//! A moment to act at, computed from durations that came from outside: adding them saturates instead of overflowing.

use std::time::Duration;

use tokio::time::Instant;

/// When something is due. `At` orders before `Never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// Due at this moment.
    At(Instant),
    /// Further away than the clock can count.
    Never,
}

impl Deadline {
    /// `delay` after `now`.
    pub fn from(now: Instant, delay: Duration) -> Self {
        now.checked_add(delay).map_or(Self::Never, Self::At)
    }

    /// The moment, if there will be one.
    pub fn instant(self) -> Option<Instant> {
        match self {
            Self::At(at) => Some(at),
            Self::Never => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_that_no_clock_can_count_is_never_due() {
        let now = Instant::now();
        assert_eq!(Deadline::from(now, Duration::MAX), Deadline::Never);
        assert_eq!(Deadline::from(now, Duration::from_secs(i64::MAX.unsigned_abs())), Deadline::Never);
        let soon = Deadline::from(now, Duration::from_secs(1));
        assert!(soon.instant() == Some(now + Duration::from_secs(1)) && soon < Deadline::Never);
    }
}
