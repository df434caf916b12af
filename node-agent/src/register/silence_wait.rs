//! Joins again under the name of a node that has just ended, as this host's own agent whose certificate is lost: the
//! control service takes that node for one that reports until it has been silent for a while, and says for how long
//! yet.

use std::time::Duration;

use tokio::time::Instant;

use super::RegisterError;

/// Repeats `join` while a node of this name reports, for as long as it could be this host's earlier agent. Dropping the
/// future gives up.
pub async fn join_after_silence<T, F>(node_name: &str, join: impl Fn() -> F) -> Result<T, RegisterError>
where
    F: Future<Output = Result<T, RegisterError>>,
{
    join_with_pauses(node_name, PAUSES, join).await
}

async fn join_with_pauses<T, F>(node_name: &str, pauses: Pauses, join: impl Fn() -> F) -> Result<T, RegisterError>
where
    F: Future<Output = Result<T, RegisterError>>,
{
    let (started, mut longest) = (Instant::now(), Duration::ZERO);
    loop {
        let error = match join().await {
            Ok(joined) => return Ok(joined),
            Err(error) => error,
        };
        let Some(silent_in) = error.reporting_node_silent_in() else { return Err(error) };
        longest = longest.max(silent_in);
        let Some(pause) = pauses.next(silent_in, longest, started.elapsed()) else { return Err(error) };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            node = node_name,
            ?silent_in,
            asking_again_in = ?pause,
            giving_up_in = ?pauses.patience(longest).saturating_sub(started.elapsed()),
            "waiting until the control service has noticed that the earlier agent of this node is silent"
        );
        tokio::time::sleep(pause).await;
    }
}

/// Bounds of the time between two requests.
#[derive(Clone, Copy, Debug)]
struct Pauses {
    shortest: Duration,
    longest: Duration,
}

/// Somebody may delete the Node meanwhile. Each request is kept by the control service for an hour.
const PAUSES: Pauses = Pauses { shortest: Duration::from_secs(1), longest: Duration::from_secs(30) };

impl Pauses {
    /// When to ask again where the node would be silent after `silent_in` and `longest` was said at most, after
    /// `waited` in all; `None` where the name is another host's.
    fn next(self, silent_in: Duration, longest: Duration, waited: Duration) -> Option<Duration> {
        (waited < self.patience(longest)).then(|| silent_in.clamp(self.shortest, self.longest))
    }

    /// Time in which nobody can report does not count at the control service: twice what it says, and not for ever.
    fn patience(self, longest: Duration) -> Duration {
        longest.saturating_mul(2).saturating_add(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::register::certificate::CertificateError;

    /// Joins without pauses a node that is refused by `refusal` for some times; what came of it, and how often it
    /// asked.
    async fn join(refused: u32, refusal: impl Fn() -> CertificateError) -> (bool, u32) {
        let (asked, pauses) = (Cell::new(0), Pauses { shortest: Duration::ZERO, longest: Duration::ZERO });
        let joined = join_with_pauses("a", pauses, || {
            asked.set(asked.get() + 1);
            let outcome = if asked.get() > refused { Ok(()) } else { Err(refusal().into()) };
            async move { outcome }
        });
        (joined.await.is_ok(), asked.get())
    }

    fn reports(silent_in: Option<Duration>) -> CertificateError {
        CertificateError::NodeReports { name: "n".into(), message: "node a is there and reports".into(), silent_in }
    }

    #[tokio::test]
    async fn a_node_joins_once_its_earlier_agent_counts_as_silent() {
        assert_eq!(join(5, || reports(Some(Duration::from_secs(600)))).await, (true, 6));
        assert_eq!(join(5, || reports(None)).await, (true, 6), "of an older control service");
    }

    #[tokio::test]
    async fn a_name_that_stays_another_hosts_is_an_error_in_the_end_and_other_refusals_are_at_once() {
        assert_eq!(join(5, || reports(Some(Duration::ZERO))).await, (false, 1));
        let denied = || CertificateError::Denied { name: "node-a-x".into(), message: "no".into() };
        assert_eq!(join(1, denied).await, (false, 1));
    }

    #[test]
    fn the_wait_is_as_long_as_the_control_service_says() {
        let next = |silent_in, longest, waited| {
            let seconds = Duration::from_secs;
            PAUSES.next(seconds(silent_in), seconds(longest), seconds(waited)).map(|pause| pause.as_secs())
        };
        assert_eq!(next(12, 40, 30), Some(12));
        assert_eq!((next(600, 600, 0), next(300, 600, 900)), (Some(30), Some(30)), "a Node may be deleted meanwhile");
        assert_eq!(next(0, 40, 60), Some(1));
        assert_eq!((next(40, 40, 109), next(40, 40, 110)), (Some(30), None), "another host's");
        assert_eq!((next(600, 600, 1229), next(600, 600, 1230)), (Some(30), None));
    }
}
