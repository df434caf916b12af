//! How long the next pods wait after pods have failed: ten seconds, doubled with each further failure, at most ten
//! minutes.

use std::time::Duration;

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use super::pods::finish_time;

const FIRST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(600);

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureStreak {
    /// Failed pods since a pod last succeeded.
    pub failures: usize,
    /// When the last of them failed.
    pub last: Option<Timestamp>,
}

impl FailureStreak {
    /// The streak once these pods, which had not ended before, are part of it.
    pub fn after(self, succeeded: &[&Pod], failed: &[&Pod]) -> Self {
        let last_success = succeeded.iter().map(|pod| finish_time(pod)).max();
        let since = failed.iter().map(|pod| finish_time(pod)).filter(|at| last_success.is_none_or(|last| *at > last));
        let base = if last_success.is_some() { Self::default() } else { self };
        since.fold(base, |streak, at| Self {
            failures: streak.failures.saturating_add(1),
            last: if streak.failures == base.failures { at } else { streak.last.max(at) },
        })
    }

    /// How long from `now` until the next pods.
    pub fn remaining(self, now: Timestamp) -> Duration {
        let Some(exponent) = self.failures.checked_sub(1) else { return Duration::ZERO };
        let doubled = 2u32.saturating_pow(u32::try_from(exponent).unwrap_or(u32::MAX));
        let delay = FIRST.saturating_mul(doubled).min(MOST);
        let elapsed = self.last.map_or(Duration::MAX, |last| {
            // A failure that is yet to come, by a clock that is ahead, is one of now.
            Duration::try_from(now.duration_since(last)).unwrap_or_default()
        });
        delay.saturating_sub(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a valid time")
    }

    fn pods(seconds: &[i64]) -> Vec<Pod> {
        let pod = |second: &i64| {
            json!({"status": {"conditions": [{"type": "Ready", "status": "False",
            "lastTransitionTime": at(*second).to_string()}]}})
        };
        seconds.iter().map(|second| serde_json::from_value(pod(second)).expect("a valid pod")).collect()
    }

    fn after(failures: usize, last: Option<i64>, succeeded: &[i64], failed: &[i64]) -> (usize, Option<i64>) {
        let (succeeded, failed) = (pods(succeeded), pods(failed));
        let streak = FailureStreak { failures, last: last.map(at) }
            .after(&succeeded.iter().collect::<Vec<_>>(), &failed.iter().collect::<Vec<_>>());
        (streak.failures, streak.last.map(|last| last.as_second() - at(0).as_second()))
    }

    #[test]
    fn failures_after_the_last_success_make_the_streak() {
        assert_eq!(after(1, Some(5), &[], &[]), (1, Some(5)));
        assert_eq!(after(1, Some(5), &[], &[9, 7]), (3, Some(9)));
        assert_eq!(after(1, Some(50), &[], &[7]), (2, Some(7)), "the last that was seen");
        assert_eq!(after(3, Some(5), &[8], &[]), (0, None));
        assert_eq!(after(3, Some(5), &[8, 6], &[7, 8, 9, 12]), (2, Some(12)));
        assert_eq!(after(0, None, &[], &[3]), (1, Some(3)));
    }

    #[test]
    fn the_delay_doubles_up_to_ten_minutes() {
        let remaining =
            |failures, elapsed| FailureStreak { failures, last: Some(at(0)) }.remaining(at(elapsed)).as_secs();
        assert_eq!((remaining(0, 0), remaining(1, 0), remaining(2, 0), remaining(5, 0)), (0, 10, 20, 160));
        assert_eq!((remaining(7, 0), remaining(usize::MAX, 0)), (600, 600));
        assert_eq!((remaining(2, 15), remaining(2, 25), remaining(1, -30)), (5, 0, 10));
    }
}
