//! Success and failure thresholds: when single results become a verdict.

use super::ProbeKind;

/// Results of one probe, counted against its thresholds.
#[derive(Clone, Debug)]
pub struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    run: u32,
    last: Option<bool>,
    verdict: Option<bool>,
}

impl Counter {
    /// A container is neither ready nor started until a probe says so, and alive until one says otherwise.
    pub fn new(kind: ProbeKind, success_threshold: u32, failure_threshold: u32) -> Self {
        let verdict = Some(kind == ProbeKind::Liveness);
        Self {
            success_threshold: success_threshold.max(1),
            failure_threshold: failure_threshold.max(1),
            run: 0,
            last: None,
            verdict,
        }
    }

    /// Takes in one result; returns the verdict where it changes.
    pub fn add(&mut self, success: bool) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold {
            return None;
        }
        // A startup probe's failures are a verdict of their own, though it was not started before either.
        let changed = self.verdict != Some(success) || (!success && self.run == threshold);
        self.verdict = Some(success);
        changed.then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_reach_the_threshold_and_one_success_breaks_the_row() {
        let mut counter = Counter::new(ProbeKind::Liveness, 1, 3);
        assert_eq!(counter.add(false), None);
        assert_eq!(counter.add(false), None);
        assert_eq!(counter.add(true), None);
        assert_eq!(counter.add(false), None);
        assert_eq!(counter.add(false), None);
        assert_eq!(counter.add(false), Some(false));
        assert_eq!(counter.add(false), None);
    }

    #[test]
    fn readiness_needs_its_successes_and_says_so_once() {
        let mut counter = Counter::new(ProbeKind::Readiness, 2, 1);
        assert_eq!(counter.add(true), None);
        assert_eq!(counter.add(true), Some(true));
        assert_eq!(counter.add(true), None);
        assert_eq!(counter.add(false), Some(false));
    }
}
