//! How many seats each priority level has: its share of all, and what it borrows of those that others do not use.
//!
//! Pure. Source: `updateBorrowingLocked` and `computeConcurrencyAllocation` of `k8s.io/apiserver`, and KEP 1040.

/// What a level's specification says of its seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatShare {
    /// `nominalConcurrencyShares`
    pub shares: u64,
    /// `lendablePercent`
    pub lendable_percent: u64,
    /// `borrowingLimitPercent`; no limit where it is absent.
    pub borrowing_limit_percent: Option<u64>,
}

/// The seats of a level that follow from the specifications alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeatBounds {
    /// Its share.
    pub nominal: usize,
    /// What it does not lend.
    pub min: usize,
    /// With the most that it borrows.
    pub max: usize,
}

/// What a level wants at an adjustment.
#[derive(Clone, Copy, Debug)]
pub struct SeatClaim {
    /// Its seats are not limited; what it uses is taken from the others'.
    pub is_exempt: bool,
    /// How many seats it has at the least and at the most.
    pub bounds: SeatBounds,
    /// The most that it could use at a moment since the last adjustment.
    pub high_watermark: usize,
    /// See [`super::seat_demand::SmoothedDemand`].
    pub smoothed: f64,
}

/// The seats of all levels, as their claims were given.
#[derive(Clone, Debug, PartialEq)]
pub struct SeatDistribution {
    /// Of each level.
    pub seats: Vec<usize>,
    /// Which part of its target each level gets that no bound keeps from it.
    pub fair_fraction: f64,
}

impl SeatBounds {
    /// The seats of a level with one share of `share_sum` in `total` seats. Rounded up: the sum of all may be a little
    /// more than `total`.
    pub fn of(share: &SeatShare, share_sum: u64, total: usize) -> Self {
        let part = (total as u64).saturating_mul(share.shares).checked_div(share_sum.max(1)).unwrap_or_default();
        let is_whole = part.saturating_mul(share_sum.max(1)) == (total as u64).saturating_mul(share.shares);
        let nominal = usize::try_from(part).unwrap_or(usize::MAX).saturating_add(usize::from(!is_whole));
        let max = match share.borrowing_limit_percent {
            Some(limit) => nominal.saturating_add(percent(nominal, limit)),
            None => nominal.saturating_add(total),
        };
        Self { nominal, min: nominal.saturating_sub(percent(nominal, share.lendable_percent)), max }
    }
}

impl SeatClaim {
    /// What the level keeps whatever the others want.
    fn least(&self) -> usize {
        match self.is_exempt {
            true => self.bounds.min.max(self.high_watermark),
            false => self.bounds.min.max(self.bounds.nominal.min(self.high_watermark)),
        }
    }

    /// What it would have if there were enough.
    pub fn target(&self) -> f64 {
        (self.least() as f64).max(self.smoothed)
    }
}

/// So many percent, rounded.
fn percent(of: usize, percent: u64) -> usize {
    let hundredths = (of as u64).saturating_mul(percent).saturating_add(50);
    usize::try_from(hundredths / 100).unwrap_or(usize::MAX)
}

/// Divides `nominal_sum` seats, the sum of all shares, among the levels.
pub fn distribute(nominal_sum: usize, claims: &[SeatClaim]) -> SeatDistribution {
    let limited = || claims.iter().filter(|claim| !claim.is_exempt);
    let exempt: usize = claims.iter().filter(|claim| claim.is_exempt).map(SeatClaim::least).sum();
    let left = nominal_sum.saturating_sub(exempt);
    let min_sum: usize = limited().map(|claim| claim.bounds.min).sum();
    let least_sum: usize = limited().map(SeatClaim::least).sum();
    let mut fair_fraction = 0.0;
    let of_limited: Box<dyn Fn(&SeatClaim) -> usize> = if left <= min_sum {
        Box::new(|claim| claim.bounds.min)
    } else if left <= least_sum {
        let part = (left - min_sum) as f64 / (least_sum - min_sum) as f64;
        Box::new(move |claim| {
            let more = claim.least().saturating_sub(claim.bounds.min) as f64 * part;
            claim.bounds.min.saturating_add(rounded(more))
        })
    } else {
        let items: Vec<AllocatedItem> = limited().map(AllocatedItem::of).collect();
        fair_fraction = find_fraction(nominal_sum as f64, &items);
        Box::new(move |claim| rounded(AllocatedItem::of(claim).at(fair_fraction)))
    };
    let seats = claims.iter().map(|claim| if claim.is_exempt { claim.least() } else { of_limited(claim) }).collect();
    SeatDistribution { seats, fair_fraction }
}

/// A level that gets a part of its target within its bounds.
struct AllocatedItem {
    lower: f64,
    upper: f64,
    target: f64,
}

impl AllocatedItem {
    /// A target of nothing would never grow with the fraction.
    const LEAST_TARGET: f64 = 0.001;

    fn of(claim: &SeatClaim) -> Self {
        let lower = claim.least() as f64;
        Self { lower, upper: (claim.bounds.max as f64).max(lower), target: claim.target().max(Self::LEAST_TARGET) }
    }

    fn at(&self, fraction: f64) -> f64 {
        (fraction * self.target).clamp(self.lower, self.upper)
    }
}

/// The fraction of their targets at which all levels together have `sum`: the parts grow with it, so it is found by
/// halving. Where the bounds do not allow it, the nearest.
fn find_fraction(sum: f64, items: &[AllocatedItem]) -> f64 {
    let (mut low, mut high) = (0.0, items.iter().map(|item| item.upper / item.target).fold(0.0, f64::max));
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        match items.iter().map(|item| item.at(middle)).sum::<f64>() < sum {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

fn rounded(seats: f64) -> usize {
    // A float becomes the nearest number that there is.
    seats.round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(shares: u64, lendable_percent: u64) -> SeatShare {
        SeatShare { shares, lendable_percent, borrowing_limit_percent: None }
    }

    fn claim(bounds: SeatBounds, high_watermark: usize, smoothed: f64) -> SeatClaim {
        SeatClaim { is_exempt: false, bounds, high_watermark, smoothed }
    }

    #[test]
    fn shares_are_parts_of_all_seats_as_in_kubernetes() {
        // `workload-low`, `node-high` and `catch-all` with the default limits.
        assert_eq!(SeatBounds::of(&share(100, 90), 245, 600), SeatBounds { nominal: 245, min: 24, max: 845 });
        assert_eq!(SeatBounds::of(&share(40, 25), 245, 600), SeatBounds { nominal: 98, min: 73, max: 698 });
        assert_eq!(SeatBounds::of(&share(5, 0), 245, 600), SeatBounds { nominal: 13, min: 13, max: 613 });
        let bounded = SeatShare { borrowing_limit_percent: Some(50), ..share(1, 0) };
        assert_eq!(SeatBounds::of(&bounded, 10, 100), SeatBounds { nominal: 10, min: 10, max: 15 });
        assert_eq!(SeatBounds::of(&share(0, 0), 0, 600).nominal, 0);
    }

    #[test]
    fn a_busy_level_borrows_what_an_idle_one_lends_and_no_more() {
        let [busy, idle] =
            [SeatBounds { nominal: 50, min: 25, max: 150 }, SeatBounds { nominal: 50, min: 10, max: 150 }];
        let seats = distribute(100, &[claim(busy, 200, 200.0), claim(idle, 0, 0.0)]).seats;
        assert_eq!(seats, [90, 10]);
        let bounded = SeatBounds { max: 60, ..busy };
        assert_eq!(distribute(100, &[claim(bounded, 200, 200.0), claim(idle, 0, 0.0)]).seats, [60, 40]);
    }

    #[test]
    fn what_a_level_needs_of_its_own_share_comes_back_at_the_next_adjustment() {
        let bounds = SeatBounds { nominal: 50, min: 10, max: 150 };
        let busy = claim(bounds, 200, 200.0);
        assert_eq!(distribute(100, &[busy, claim(bounds, 50, 5.0)]).seats, [50, 50]);
        assert_eq!(distribute(100, &[busy, claim(bounds, 30, 5.0)]).seats, [70, 30]);
    }

    #[test]
    fn what_exempt_requests_use_is_taken_from_the_others() {
        let bounds = SeatBounds { nominal: 50, min: 10, max: 150 };
        let exempt = |high_watermark| SeatClaim {
            is_exempt: true,
            ..claim(SeatBounds { nominal: 0, min: 0, max: 0 }, high_watermark, 0.0)
        };
        let busy = claim(bounds, 50, 50.0);
        assert_eq!(distribute(100, &[exempt(40), busy, busy]).seats, [40, 30, 30]);
        assert_eq!(distribute(100, &[exempt(500), busy, busy]).seats, [500, 10, 10]);
    }
}
