//! Lets a server that has become quiet become small again: history is let go of in time even where nothing is written any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{heap, store::Store};

const EVERY: Duration = Duration::from_secs(60);
/// With this many bytes of objects freed, a walk through the heap is worth its while.
const MUCH: usize = 4 << 20;

pub async fn run(store: Arc<dyn Store>, stop: CancellationToken) {
    loop {
        tokio::select! {
            _ = stop.cancelled() => return,
            _ = tokio::time::sleep(EVERY) => {}
        }
        if store.trim(Instant::now()) >= MUCH {
            heap::return_free_pages();
        }
    }
}
