//! How long requests may take; one that writes, all webhooks that it asks together.

use std::time::Duration;

use tokio::time::Instant;

use crate::{later::later, status::Status};

tokio::task_local! {
    /// Of the request that this task handles.
    static DEADLINE: Instant;
}

/// The most that a request may take unless it goes on without end: to wait for a seat (a quarter of it), to be answered
/// by another server, and for its answer to be sent. Source: the default of `--request-timeout`, which is no flag here.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The most that a write may take. Source: `requestTimeoutUpperBound`.
pub const LONGEST: Duration = Duration::from_secs(34);

/// Handles a request that has to end within [`LONGEST`].
pub async fn bound<T>(handle: impl Future<Output = T>) -> T {
    within(LONGEST, handle).await
}

/// Handles a request that has to end within `time`.
pub async fn within<T>(time: Duration, handle: impl Future<Output = T>) -> T {
    DEADLINE.scope(later(Instant::now(), time), handle).await
}

/// What the request that is being handled has left; outside of one, all of it.
pub fn left() -> Duration {
    DEADLINE.try_with(|at| at.saturating_duration_since(Instant::now())).unwrap_or(LONGEST)
}

/// Refuses to go on with a request that has nothing left.
pub fn must_not_be_over() -> Result<(), Status> {
    if left().is_zero() { Err(over()) } else { Ok(()) }
}

/// Waits for `work` until the request that is being handled has nothing left; outside of one, until the work is done.
pub async fn wait_for<T>(work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match DEADLINE.try_with(|at| *at) {
        Ok(at) => tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| Err(over())),
        Err(_) => work.await,
    }
}

fn over() -> Status {
    Status::timeout("request did not complete within requested timeout")
}
