//! Moments as Kubernetes writes them: RFC 3339 in UTC, in whole seconds.

use jiff::Timestamp;

/// The present moment.
pub fn now() -> String {
    at(Timestamp::now())
}

/// `moment` in whole seconds; what is left over is cut off.
pub fn at(moment: Timestamp) -> String {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_whole_seconds() {
        assert_eq!(at("2024-02-03T04:05:06.9Z".parse().unwrap()), "2024-02-03T04:05:06Z");
        assert_eq!(at(Timestamp::MAX), "9999-12-30T22:00:00Z");
    }
}
