//! Trims old watch history each minute, so that idle servers free memory even where nothing is written
//! any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::store::Store;

const EVERY: Duration = Duration::from_secs(60);

/// Trims each minute, until `stop`.
pub async fn run(store: Arc<dyn Store>, stop: CancellationToken) {
    loop {
        tokio::select! {
            _ = stop.cancelled() => return,
            _ = tokio::time::sleep(EVERY) => {}
        }
        store.trim(Instant::now());
    }
}
