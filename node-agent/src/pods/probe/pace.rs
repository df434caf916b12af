//! When a probe asks again: pure.
//!
//! A container that has just started is often ready a moment after its readiness probe first asked. With the period
//! alone it would count as unready for ten more seconds, by default. Until it was ready once, its readiness probe
//! therefore asks again soon, at growing intervals up to its period. Startup and liveness probes count failures, and
//! keep their period.

use std::time::Duration;

use super::ProbeKind;

/// The pace of one probe.
#[derive(Clone, Debug)]
pub struct Pace {
    period: Duration,
    /// Interval before the next early try; `None` once these are over.
    early: Option<Duration>,
}

/// When to probe again after one result, and whether a failure is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// From the start of this try to that of the next.
    pub after: Duration,
    /// Whether a failure is recorded as an event: of the early tries, only the first one's is.
    pub is_recorded: bool,
}

const FIRST: Duration = Duration::from_millis(100);

impl Pace {
    /// The pace of a container's probe of this kind, from its start.
    pub fn new(kind: ProbeKind, period: Duration) -> Self {
        Self { period, early: (kind == ProbeKind::Readiness).then_some(FIRST) }
    }

    /// Records a result; returns when to try again.
    pub fn next(&mut self, success: bool) -> Next {
        let is_recorded = self.early.is_none_or(|early| early == FIRST);
        self.early = self.early.filter(|early| !success && *early < self.period);
        let Some(early) = self.early else { return Next { after: self.period, is_recorded } };
        self.early = Some(early.saturating_mul(2));
        Next { after: early, is_recorded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(kind: ProbeKind, count: usize) -> Vec<(u128, bool)> {
        let mut pace = Pace::new(kind, Duration::from_secs(1));
        (0..count).map(|_| pace.next(false)).map(|next| (next.after.as_millis(), next.is_recorded)).collect()
    }

    #[test]
    fn readiness_is_asked_soon_again_until_the_period_is_reached() {
        let expected =
            [(100, true), (200, false), (400, false), (800, false), (1000, false), (1000, true), (1000, true)];
        assert_eq!(failures(ProbeKind::Readiness, 7), expected);
    }

    #[test]
    fn after_a_success_the_period_holds() {
        let mut pace = Pace::new(ProbeKind::Readiness, Duration::from_secs(10));
        pace.next(false);
        assert_eq!(pace.next(true).after, Duration::from_secs(10));
        assert_eq!(pace.next(false), Next { after: Duration::from_secs(10), is_recorded: true });
    }

    #[test]
    fn probes_that_count_failures_keep_their_period() {
        assert_eq!(failures(ProbeKind::Startup, 2), [(1000, true), (1000, true)]);
        assert_eq!(failures(ProbeKind::Liveness, 2), [(1000, true), (1000, true)]);
    }
}
