//! Which images go, and in which order: pure. The rules are those of the kubelet's `image_gc_manager.go`.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::{image_gc_policy::ImageGcPolicy, runtime::LocalImage};

/// The file system of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// Used and available bytes together.
    pub capacity_bytes: u64,
    /// What can still be written.
    pub available_bytes: u64,
}

impl DiskUsage {
    /// Percent in use, rounded up; `None` for a file system without bytes.
    pub fn percent(self) -> Option<u64> {
        let available = u128::from(self.available_bytes.min(self.capacity_bytes));
        let free = (available * 100).checked_div(u128::from(self.capacity_bytes))?;
        Some(100 - u64::try_from(free).unwrap_or(100))
    }

    /// What must go until `policy` is content; `None` below its high threshold.
    pub fn bytes_to_free(self, policy: &ImageGcPolicy) -> Option<u64> {
        if self.percent()? < u64::from(policy.high_threshold_percent) {
            return None;
        }
        let wanted_free = u128::from(100_u8.saturating_sub(policy.low_threshold_percent));
        let wanted = u128::from(self.capacity_bytes) * wanted_free / 100;
        let missing = wanted.saturating_sub(u128::from(self.available_bytes.min(self.capacity_bytes)));
        Some(u64::try_from(missing).unwrap_or(u64::MAX))
    }
}

/// When each image was first seen and last used, since the agent has started.
#[derive(Debug, Default)]
pub struct ImageHistory(BTreeMap<String, Seen>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    last_used: Option<Instant>,
    first: Instant,
}

impl ImageHistory {
    /// Takes in the list of `now`; images that are not in it are forgotten.
    pub fn observe(&mut self, images: &[LocalImage], now: Instant) {
        let seen = images.iter().map(|image| {
            let before = self.0.get(&image.id);
            let first = before.map_or(now, |before| before.first);
            let last_used = if image.is_used { Some(now) } else { before.and_then(|before| before.last_used) };
            (image.id.clone(), Seen { last_used, first })
        });
        self.0 = seen.collect();
    }

    fn of(&self, image: &LocalImage, now: Instant) -> Seen {
        self.0.get(&image.id).copied().unwrap_or(Seen { last_used: None, first: now })
    }

    /// Those of `images` that nothing uses, the longest unused first.
    pub fn unused(&self, images: Vec<LocalImage>, now: Instant) -> Vec<LocalImage> {
        let mut unused: Vec<_> = images.into_iter().filter(|image| !image.is_used).collect();
        unused.sort_by_key(|image| {
            let Seen { last_used, first } = self.of(image, now);
            (last_used, first, image.id.clone())
        });
        unused
    }

    /// Whether `image` was not used for longer than it may stay. `began` is when the agent started to look.
    pub fn is_too_old(&self, image: &LocalImage, policy: &ImageGcPolicy, began: Instant, now: Instant) -> bool {
        let age = |since: Instant| now.saturating_duration_since(since);
        let unused_for = self.of(image, now).last_used.map_or(Duration::MAX, age);
        !policy.maximum_age.is_zero() && age(began) > policy.maximum_age && unused_for > policy.maximum_age
    }

    /// Whether `image` is known for so long that no container is about to use it.
    pub fn may_go(&self, image: &LocalImage, policy: &ImageGcPolicy, now: Instant) -> bool {
        now.saturating_duration_since(self.of(image, now).first) >= policy.minimum_age
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn image(id: &str, is_used: bool) -> LocalImage {
        LocalImage { id: id.into(), tags: BTreeSet::new(), size_bytes: 1, is_used }
    }

    fn ids(images: Vec<LocalImage>) -> Vec<String> {
        images.into_iter().map(|image| image.id).collect()
    }

    fn disk(percent: u64) -> DiskUsage {
        DiskUsage { capacity_bytes: 1000, available_bytes: 1000 - 10 * percent }
    }

    #[test]
    fn from_the_high_threshold_on_as_much_goes_as_brings_the_disk_to_the_low_one() {
        let policy = ImageGcPolicy::default();
        assert_eq!(disk(84).bytes_to_free(&policy), None);
        assert_eq!(disk(85).bytes_to_free(&policy), Some(50));
        assert_eq!(disk(100).bytes_to_free(&policy), Some(200));
        assert_eq!(DiskUsage { capacity_bytes: 0, available_bytes: 0 }.bytes_to_free(&policy), None);
        let nonsense = DiskUsage { capacity_bytes: 5, available_bytes: 9 };
        assert_eq!((nonsense.percent(), nonsense.bytes_to_free(&policy)), (Some(0), None));
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_used_not_at_all() {
        let (mut history, start) = (ImageHistory::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        history.observe(&[image("never", false), image("early", true), image("late", true)], at(0));
        history.observe(&[image("never", false), image("early", false), image("late", true)], at(10));
        let now = vec![image("late", false), image("new", false), image("used", true), image("early", false)];
        let now: Vec<_> = now.into_iter().chain([image("never", false)]).collect();
        history.observe(&now, at(20));
        assert_eq!(ids(history.unused(now, at(20))), ["never", "new", "early", "late"]);
    }

    #[test]
    fn a_young_image_stays_and_one_that_went_and_came_back_is_young() {
        let (mut history, start) = (ImageHistory::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let policy = ImageGcPolicy::default();
        let one = image("one", false);
        assert!(!history.may_go(&one, &policy, at(0)), "never seen");
        history.observe(std::slice::from_ref(&one), at(0));
        assert!(!history.may_go(&one, &policy, at(119)) && history.may_go(&one, &policy, at(120)));
        history.observe(&[], at(130));
        history.observe(std::slice::from_ref(&one), at(140));
        assert!(!history.may_go(&one, &policy, at(200)));
    }

    #[test]
    fn an_image_is_too_old_only_once_the_agent_has_looked_for_that_long() {
        let (mut history, start) = (ImageHistory::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let policy = ImageGcPolicy { maximum_age: Duration::from_secs(600), ..ImageGcPolicy::default() };
        let (never, once) = (image("never", false), image("once", true));
        history.observe(&[never.clone(), once.clone()], at(300));
        assert!(
            !history.is_too_old(&never, &policy, start, at(600)) && !history.is_too_old(&once, &policy, start, at(600))
        );
        assert!(
            history.is_too_old(&never, &policy, start, at(601)) && !history.is_too_old(&once, &policy, start, at(601))
        );
        assert!(history.is_too_old(&once, &policy, start, at(901)));
        assert!(!history.is_too_old(&never, &ImageGcPolicy::default(), start, at(9000)), "0 is never");
    }

    proptest! {
        #[test]
        fn freeing_what_is_asked_for_ends_at_or_below_the_low_threshold(
            capacity_bytes in 100..=u64::MAX, available in 0.0..=1.0, high in 1..=100_u8, low in 0..100_u8,
        ) {
            let available_bytes = (capacity_bytes as f64 * available) as u64;
            let policy = ImageGcPolicy {
                high_threshold_percent: high, low_threshold_percent: low.min(high - 1), ..ImageGcPolicy::default()
            };
            let before = DiskUsage { capacity_bytes, available_bytes: available_bytes.min(capacity_bytes) };
            if let Some(bytes) = before.bytes_to_free(&policy) {
                let after = DiskUsage { available_bytes: before.available_bytes.saturating_add(bytes), ..before };
                // One more percent where the division leaves a rest.
                prop_assert!(after.percent().unwrap() <= u64::from(policy.low_threshold_percent) + 1);
            }
        }
    }
}
