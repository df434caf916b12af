//! When clients of a priority level are to come again whose requests it drops: later, the longer it drops many.
//!
//! Twice as late after each time as long as that with three drops or more for each second of it, and a second earlier
//! where there were fewer than one. Pure: the time comes as Unix seconds.
//!
//! Source: `dropped_requests_tracker.go` of `k8s.io/apiserver`.

use std::collections::VecDeque;

/// The longest time, in seconds.
const LONGEST: i64 = 32;

/// What a level dropped of late.
#[derive(Debug)]
pub struct DroppedRequests {
    /// Seconds before the current one, and how many were dropped in each.
    history: VecDeque<(i64, u64)>,
    current: (i64, u64),
    retry_after: i64,
    raised_at: i64,
}

impl Default for DroppedRequests {
    fn default() -> Self {
        Self { history: VecDeque::new(), current: (0, 0), retry_after: 1, raised_at: 0 }
    }
}

impl DroppedRequests {
    /// A request is dropped.
    pub fn record(&mut self, now: i64) {
        let (second, count) = self.current;
        if second == now {
            self.current.1 = count.saturating_add(1);
            return;
        }
        self.history.push_back((second, count));
        let kept = LONGEST.min(self.retry_after.saturating_mul(2));
        self.history.retain(|(then, _)| second.saturating_sub(*then) <= kept);
        self.current = (now, 1);
        self.update(now);
    }

    /// After how many seconds clients are to come again.
    pub fn retry_after(&self) -> u32 {
        u32::try_from(self.retry_after).unwrap_or(1)
    }

    /// Of the time before the current second, as long as clients wait.
    fn update(&mut self, now: i64) {
        let within = |then: i64| then < now && now.saturating_sub(then) <= self.retry_after;
        let counts = self.history.iter().filter(|(then, _)| within(*then)).map(|(_, count)| *count);
        let dropped = i64::try_from(counts.fold(0, u64::saturating_add)).unwrap_or(i64::MAX);
        let is_due = now.saturating_sub(self.raised_at) >= self.retry_after;
        if is_due && dropped >= self.retry_after.saturating_mul(3) {
            self.retry_after = self.retry_after.saturating_mul(2).min(LONGEST);
            self.raised_at = now;
        } else if dropped < self.retry_after && self.retry_after > 1 {
            self.retry_after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `TestDroppedRequestsTracker`: the second, how many are dropped in it, and the time after that.
    #[test]
    fn clients_come_later_while_many_are_dropped_and_earlier_again() {
        let mut dropped = DroppedRequests::default();
        let steps = [
            (0, 5, 1),
            (1, 11, 2),
            (2, 1, 2),
            (3, 11, 4),
            (4, 1, 4),
            (7, 1, 8),
            (11, 1, 8),
            (15, 1, 7),
            (17, 1, 6),
            (21, 14, 5),
            (22, 1, 10),
        ];
        for (second, count, expected) in steps {
            for _ in 0..count {
                dropped.record(1_000_000 + second);
            }
            assert_eq!(dropped.retry_after(), expected, "after second {second}");
        }
    }

    #[test]
    fn no_time_is_longer_than_the_longest() {
        let mut dropped = DroppedRequests::default();
        for second in 1_000_000..1_000_200 {
            for _ in 0..100 {
                dropped.record(second);
            }
        }
        assert_eq!(dropped.retry_after(), 32);
        assert!(dropped.history.len() <= 34, "{}", dropped.history.len());
    }
}
