//! Runs the audit at the start and every few minutes, and commits what repairs the difference.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Allocator, audit::audit};
use crate::store::{CommitError, Store};

/// As often as Kubernetes' repair loops run.
const INTERVAL: Duration = Duration::from_secs(180);
/// A repaired record may free what another Service waits for; more rounds than this repair nothing further.
const ROUNDS: usize = 4;

/// Between two tries while the audit of the start is not complete.
const RETRY: Duration = Duration::from_secs(5);

/// The audit before the first request. Where the store cannot be written to, the service starts nevertheless: without
/// reads and deletions nobody could make space. Services get no new addresses and ports then until a later audit is
/// complete.
pub async fn repair_at_start(store: &Arc<dyn Store>, allocator: &Allocator) {
    if let Err(error) = repair(store, allocator).await {
        tracing::warn!("Services get no addresses and ports yet: their records could not be repaired: {error}");
        allocator.pause();
    }
}

/// Repeats the audit until it finds nothing to repair. Returns how many differences were repaired.
pub async fn repair(store: &Arc<dyn Store>, allocator: &Allocator) -> Result<usize, CommitError> {
    let mut repaired = 0;
    for _ in 0..ROUNDS {
        let (snapshot, auditor) = (store.snapshot(), allocator.clone());
        let audited = tokio::task::spawn_blocking(move || audit(&auditor, &snapshot)).await;
        let found =
            audited.map_err(|error| CommitError::Unavailable { message: format!("the audit failed: {error}") })?;
        for conflict in &found.conflicts {
            tracing::warn!("{conflict}");
        }
        if found.repairs.is_empty() {
            break;
        }
        for result in store.commit_all(found.repairs).await {
            match result {
                Ok(_) => repaired += 1,
                // The Service was changed meanwhile: the next round looks again.
                Err(CommitError::Conflict { .. } | CommitError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    allocator.resume();
    if repaired > 0 {
        tracing::info!(repaired, "records of addresses and ports now agree with the Services");
    }
    Ok(repaired)
}

/// Repairs every few minutes until `stop`.
pub async fn audit_repeatedly(store: Arc<dyn Store>, allocator: Allocator, stop: CancellationToken) {
    loop {
        let wait = if allocator.is_paused() { RETRY } else { INTERVAL };
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
        if let Err(error) = repair(&store, &allocator).await {
            tracing::warn!("records of addresses and ports could not be repaired: {error}");
        }
    }
}
