//! When images are removed, as the kubelet's settings of the same names say.

use std::time::Duration;

/// When unused images go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageGcPolicy {
    /// Percent of the images' file system in use, from which on images are removed. 100 with a maximum age of 0: never.
    pub high_threshold_percent: u8,
    /// Percent down to which they are removed.
    pub low_threshold_percent: u8,
    /// One that was found more recently stays: a container may be about to use it.
    pub minimum_age: Duration,
    /// One that was unused for longer goes, however much is free; 0 keeps it.
    pub maximum_age: Duration,
}

impl Default for ImageGcPolicy {
    fn default() -> Self {
        let minimum_age = Duration::from_secs(120);
        Self { high_threshold_percent: 85, low_threshold_percent: 80, minimum_age, maximum_age: Duration::ZERO }
    }
}

/// Why the settings contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidImageGcPolicy {
    /// Nothing is fuller than full.
    #[error("{percent} is no percentage of the images' file system: it must be between 0 and 100")]
    Percentage {
        /// As it was given.
        percent: u8,
    },
    /// Removing images down to the low threshold must end below the high one.
    #[error("the low threshold of {low} % must be less than the high threshold of {high} %")]
    Order {
        /// `imageGCLowThresholdPercent`
        low: u8,
        /// `imageGCHighThresholdPercent`
        high: u8,
    },
    /// An image would go before it may.
    #[error("the maximum age of unused images, {maximum:?}, must be more than their minimum age, {minimum:?}")]
    Ages {
        /// `imageMinimumGCAge`
        minimum: Duration,
        /// `imageMaximumGCAge`
        maximum: Duration,
    },
}

impl ImageGcPolicy {
    /// As the kubelet's validation.
    pub fn validate(&self) -> Result<(), InvalidImageGcPolicy> {
        let (low, high) = (self.low_threshold_percent, self.high_threshold_percent);
        if let Some(percent) = [low, high].into_iter().find(|percent| *percent > 100) {
            return Err(InvalidImageGcPolicy::Percentage { percent });
        }
        if low >= high {
            return Err(InvalidImageGcPolicy::Order { low, high });
        }
        let (minimum, maximum) = (self.minimum_age, self.maximum_age);
        if !maximum.is_zero() && maximum <= minimum {
            return Err(InvalidImageGcPolicy::Ages { minimum, maximum });
        }
        Ok(())
    }

    /// Whether no image ever goes.
    pub fn is_off(&self) -> bool {
        self.high_threshold_percent == 100 && self.maximum_age.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let policy = |high, low| ImageGcPolicy {
            high_threshold_percent: high,
            low_threshold_percent: low,
            ..ImageGcPolicy::default()
        };
        assert_eq!(ImageGcPolicy::default().validate(), Ok(()));
        assert_eq!(policy(100, 99).validate(), Ok(()));
        assert_eq!(policy(101, 80).validate(), Err(InvalidImageGcPolicy::Percentage { percent: 101 }));
        assert_eq!(policy(80, 80).validate(), Err(InvalidImageGcPolicy::Order { low: 80, high: 80 }));
        let ages = |maximum| ImageGcPolicy { maximum_age: Duration::from_secs(maximum), ..ImageGcPolicy::default() };
        assert_eq!((ages(0).validate(), ages(121).validate()), (Ok(()), Ok(())));
        assert!(matches!(ages(120).validate(), Err(InvalidImageGcPolicy::Ages { .. })));
    }

    #[test]
    fn only_a_full_threshold_without_an_age_turns_it_off() {
        let full = ImageGcPolicy { high_threshold_percent: 100, ..ImageGcPolicy::default() };
        assert!(full.is_off() && !ImageGcPolicy::default().is_off());
        assert!(!ImageGcPolicy { maximum_age: Duration::from_secs(600), ..full }.is_off());
    }
}
