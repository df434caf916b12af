//! How many seats a priority level could use: measured between two adjustments, and smoothed over many.
//!
//! Source: `Integrator` and `seatDemandStats` of `k8s.io/apiserver`.

use std::time::Duration;

/// How much of the smoothed demand is left after an adjustment: half of it after five minutes.
const SMOOTHING: f64 = 0.977;

/// The demand since it was asked for before.
#[derive(Debug)]
pub struct SeatDemand {
    seats: usize,
    since: Duration,
    begun: Duration,
    /// Seats over time, and their squares, in seat-seconds.
    sum: f64,
    squares: f64,
    most: usize,
}

/// The demand of some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ObservedDemand {
    /// Average over the time; `None` where none has passed.
    pub average: Option<f64>,
    /// Standard deviation.
    pub deviation: f64,
    /// The most at a moment.
    pub most: usize,
}

/// The demand over many adjustments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SmoothedDemand {
    /// Of the last one.
    pub average: f64,
    /// Of the last one.
    pub deviation: f64,
    /// Of the last one.
    pub high_watermark: usize,
    /// Grows at once with average and deviation, and falls slowly.
    pub smoothed: f64,
}

impl SeatDemand {
    /// No demand.
    pub fn new(now: Duration) -> Self {
        Self { seats: 0, since: now, begun: now, sum: 0.0, squares: 0.0, most: 0 }
    }

    /// So many seats could be used from now on.
    pub fn set(&mut self, now: Duration, seats: usize) {
        self.count(now);
        self.seats = seats;
        self.most = self.most.max(seats);
    }

    /// What was observed; begins anew.
    pub fn take(&mut self, now: Duration) -> ObservedDemand {
        self.count(now);
        let seconds = now.saturating_sub(self.begun).as_secs_f64();
        let average = (seconds > 0.0).then(|| self.sum / seconds);
        let variance = average.map_or(0.0, |average| self.squares / seconds - average * average);
        let observed = ObservedDemand { average, deviation: variance.max(0.0).sqrt(), most: self.most };
        *self = Self { seats: self.seats, most: self.seats, ..Self::new(now) };
        observed
    }

    fn count(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        let seats = self.seats as f64;
        self.sum += seats * seconds;
        self.squares += seats * seats * seconds;
        self.since = self.since.max(now);
    }
}

impl SmoothedDemand {
    /// Takes in what was observed since.
    pub fn update(&mut self, observed: ObservedDemand) {
        self.high_watermark = observed.most;
        let Some(average) = observed.average else { return };
        (self.average, self.deviation) = (average, observed.deviation);
        let envelope = average + observed.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_is_weighted_by_time_and_begins_anew() {
        let at = Duration::from_secs;
        let mut demand = SeatDemand::new(at(0));
        demand.set(at(0), 4);
        demand.set(at(5), 0);
        let observed = demand.take(at(10));
        assert_eq!(observed, ObservedDemand { average: Some(2.0), deviation: 2.0, most: 4 });
        assert_eq!(demand.take(at(20)), ObservedDemand { average: Some(0.0), deviation: 0.0, most: 0 });
        assert_eq!(demand.take(at(20)).average, None);
    }

    #[test]
    fn smoothed_demand_grows_at_once_and_falls_slowly() {
        let mut smoothed = SmoothedDemand::default();
        smoothed.update(ObservedDemand { average: Some(10.0), deviation: 2.0, most: 15 });
        assert_eq!((smoothed.smoothed, smoothed.high_watermark), (12.0, 15));
        smoothed.update(ObservedDemand { average: Some(0.0), deviation: 0.0, most: 0 });
        assert!((11.0..12.0).contains(&smoothed.smoothed) && smoothed.high_watermark == 0);
    }
}
