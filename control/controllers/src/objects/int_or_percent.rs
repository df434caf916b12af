//! Numbers of pods that are given as such or as a percentage.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What becomes of the part of a pod that a percentage comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// It counts as a pod.
    Up,
    /// It does not count.
    Down,
}

/// The number that `value` stands for, where `of` is 100 %. Never negative; too large ones saturate.
pub fn resolve(value: &IntOrString, of: i32, round: Rounding) -> i32 {
    match value {
        IntOrString::Int(count) => (*count).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let parts = percent.max(0).saturating_mul(of.into());
            let whole = match round {
                Rounding::Up => parts.saturating_add(99) / 100,
                Rounding::Down => parts / 100,
            };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked_and_saturate() {
        let percent = |text: &str, round| resolve(&IntOrString::String(text.into()), 7, round);
        assert_eq!((percent("50%", Rounding::Up), percent("50%", Rounding::Down)), (4, 3));
        assert_eq!(percent("9223372036854775807%", Rounding::Up), i32::MAX);
        assert_eq!(resolve(&IntOrString::Int(-1), 7, Rounding::Up), 0);
    }
}
