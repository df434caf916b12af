//! Trims old watch history and frames that watchers shared, so that idle servers free memory even where nothing is
//! written any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::store::Store;

const EVERY: Duration = Duration::from_secs(5);

/// Trims every few seconds, until `stop`.
pub async fn run(store: Arc<dyn Store>, stop: CancellationToken) {
    loop {
        tokio::select! {
            _ = stop.cancelled() => return,
            _ = tokio::time::sleep(EVERY) => {}
        }
        store.trim(Instant::now());
    }
}
