//! Joins again under the name of a node that has just ended, as this host's own agent whose certificate is lost: the
//! control service takes that node for one that reports until it has been silent for a while.

use std::time::Duration;

use tokio::time::Instant;

use super::RegisterError;

/// How long a node waits for its earlier agent to count as silent.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// In all.
    pub total: Duration,
    /// Between two requests. Each is kept by the control service for an hour.
    pub interval: Duration,
}

impl Default for Patience {
    /// More than a grace period of 40 s and the start of a control service, and not for ever: the name may be another
    /// host's.
    fn default() -> Self {
        Self { total: Duration::from_secs(240), interval: Duration::from_secs(10) }
    }
}

/// Repeats `join` while a node of this name reports. Dropping the future gives up.
pub async fn join_after_silence<T, F>(
    node_name: &str,
    patience: Patience,
    join: impl Fn() -> F,
) -> Result<T, RegisterError>
where
    F: Future<Output = Result<T, RegisterError>>,
{
    let started = Instant::now();
    loop {
        match join().await {
            Err(error) if error.is_node_reporting() && started.elapsed() < patience.total => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    node = node_name,
                    asking_again_in = ?patience.interval,
                    giving_up_in = ?patience.total.saturating_sub(started.elapsed()),
                    "waiting until the control service has noticed that the earlier agent of this node is silent"
                );
                tokio::time::sleep(patience.interval).await;
            }
            joined => return joined,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::register::certificate::CertificateError;

    const ENDLESS: Patience = Patience { total: Duration::MAX, interval: Duration::ZERO };

    /// Joins a node that is refused by `refusal` for some times; what came of it, and how often it asked.
    async fn join(refused: u32, patience: Patience, refusal: fn() -> CertificateError) -> (bool, u32) {
        let asked = Cell::new(0);
        let joined = join_after_silence("a", patience, || {
            asked.set(asked.get() + 1);
            let outcome = if asked.get() > refused { Ok(()) } else { Err(refusal().into()) };
            async move { outcome }
        });
        (joined.await.is_ok(), asked.get())
    }

    fn reports() -> CertificateError {
        CertificateError::NodeReports { name: "node-a-x".into(), message: "node a is there and reports".into() }
    }

    fn denied() -> CertificateError {
        CertificateError::Denied { name: "node-a-x".into(), message: "no".into() }
    }

    #[tokio::test]
    async fn a_node_joins_once_its_earlier_agent_counts_as_silent() {
        assert_eq!(join(5, ENDLESS, reports).await, (true, 6));
    }

    #[tokio::test]
    async fn a_name_that_stays_another_hosts_is_an_error_in_the_end_and_other_refusals_are_at_once() {
        assert_eq!(join(5, Patience { total: Duration::ZERO, ..ENDLESS }, reports).await, (false, 1));
        assert_eq!(join(5, ENDLESS, denied).await, (false, 1));
    }
}
