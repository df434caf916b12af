//! Retries transient failures: the API or the runtime is away, or not ready itself.

use std::{error::Error, time::Duration};

use backon::{ExponentialBuilder, Retryable};

/// Repeats `act` with back-off until it succeeds, or fails with an error that is not transient.
///
/// Each failure is logged as `cannot WHAT yet`. Dropping the future gives up.
pub async fn retry_while_transient<T, E, F>(
    what: &str,
    is_transient: impl FnMut(&E) -> bool,
    act: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: Error + 'static,
{
    let delays = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times();
    act.retry(delays)
        .sleep(tokio::time::sleep)
        .when(is_transient)
        .notify(|error, delay| {
            tracing::warn!(error = error as &dyn Error, ?delay, "cannot {what} yet, trying again");
        })
        .await
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        io::ErrorKind::{self, ConnectionRefused, NotFound},
    };

    use super::*;

    /// Runs through `outcomes` and returns what came of it, and how many were left.
    async fn run(outcomes: Vec<Result<u8, ErrorKind>>) -> (Result<u8, ErrorKind>, usize) {
        let left = RefCell::new(outcomes.into_iter());
        let next = || async { left.borrow_mut().next().expect("an outcome").map_err(std::io::Error::from) };
        let result = retry_while_transient("do it", |error| error.kind() == ConnectionRefused, next).await;
        (result.map_err(|error| error.kind()), left.borrow().len())
    }

    #[tokio::test]
    async fn only_transient_errors_are_retried() {
        assert_eq!(run(vec![Err(ConnectionRefused), Ok(1), Ok(2)]).await, (Ok(1), 1));
        assert_eq!(run(vec![Err(NotFound), Ok(1)]).await, (Err(NotFound), 1));
    }
}
