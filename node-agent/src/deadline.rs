//! Points in time that lie a given wait ahead, and answers that must come before one. Waits that come from Pods may be
//! any number: these saturate where `+` would panic.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// `wait` after `now`; decades ahead where that is more than can be counted.
pub fn instant_after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(LONGEST)).unwrap_or(now)
}

/// `wait` after `now`; the largest representable time where that overflows.
pub fn timestamp_after(now: Timestamp, wait: Duration) -> Timestamp {
    now.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// A number of seconds from a Pod as a wait: none where it is negative.
pub fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// Why a request to the API has no result.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The API is busy, or the connection to it leads nowhere: who asks again had better do so over another.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// It was refused, or could not be sent.
    #[error(transparent)]
    Failed(#[from] kube::Error),
}

/// The answer of the API, or an error where it does not come within `limit`.
pub async fn answered<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, AnswerError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(AnswerError::Late(limit)),
    }
}

/// Thirty years, as tokio's own: timers round up, so a wait must stay clear of what an `Instant` can hold.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_an_error() {
        let limit = Duration::from_millis(1);
        let error = answered::<()>(limit, std::future::pending()).await.unwrap_err();
        assert!(matches!(error, AnswerError::Late(within) if within == limit), "{error:?}");
        let refused = async { Err::<(), _>(kube::Error::LinesCodecMaxLineLengthExceeded) };
        assert!(matches!(answered(limit, refused).await, Err(AnswerError::Failed(_))));
        assert_eq!(answered(Duration::from_secs(60), async { Ok(7) }).await.unwrap(), 7);
    }

    #[test]
    fn no_wait_is_too_long_to_be_counted() {
        let (instant, timestamp) = (Instant::now(), Timestamp::now());
        for wait in [Duration::MAX, seconds(i64::MAX), Duration::from_secs(u64::MAX)] {
            assert!(instant_after(instant, wait) > instant);
            assert_eq!(timestamp_after(timestamp, wait), Timestamp::MAX);
        }
        assert_eq!(seconds(i64::MIN), Duration::ZERO);
        assert_eq!(instant_after(instant, seconds(3)), instant + Duration::from_secs(3));
    }
}
