//! How a pod's requests to the API are repeated: each has a time limit, and waits grow, with jitter, so that the pods
//! of many nodes do not all ask at once an API that has just come back.

use std::time::Duration;

use crate::deadline::{self, AnswerError};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(16);
/// An API that takes longer is away: its connection may lead nowhere.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// The wait after `failures` failures that follow one another: between half and the whole of a time that doubles.
pub fn wait_after(failures: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    whole.mul_f64(rand::random_range(0.5..1.0))
}

/// The answer, or an error where it does not come in time.
pub async fn answered<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, AnswerError> {
    deadline::answered(ANSWERED_WITHIN, answer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        for (failures, whole) in [(0, 500), (1, 500), (2, 1000), (5, 8000), (6, 16000), (u32::MAX, 16000)] {
            let whole = Duration::from_millis(whole);
            let waits: Vec<_> = (0..50).map(|_| wait_after(failures)).collect();
            assert!(waits.iter().all(|wait| whole / 2 <= *wait && *wait <= whole), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{failures}: no jitter");
        }
    }
}
