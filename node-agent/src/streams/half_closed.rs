//! What is left of a copied connection once one direction has ended: the other goes on to its end, or until nothing has
//! come by it for a while. For protocols that have no word for the end of one direction, and clients that do not say
//! it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// How far one direction of a connection has come.
#[derive(Debug, Default)]
pub struct DirectionProgress {
    parts: AtomicU64,
    is_writing: AtomicBool,
}

impl DirectionProgress {
    /// Counts a part of the direction, which `write` passes on.
    pub async fn write<T>(&self, write: impl Future<Output = T>) -> T {
        self.is_writing.store(true, Ordering::Relaxed);
        let written = write.await;
        self.is_writing.store(false, Ordering::Relaxed);
        self.parts.fetch_add(1, Ordering::Relaxed);
        written
    }
}

/// Awaits the end of a `direction`, which counts its parts in `progress`; `None` once it was quiet for that long.
///
/// Who takes its time to read a part is waited for, for [`STUCK`] times as long: quiet is a direction in which nothing
/// comes.
pub async fn until_quiet<F: Future + Unpin>(
    mut direction: F,
    progress: &DirectionProgress,
    quiet: Duration,
) -> Option<F::Output> {
    let mut stuck = 0_u32;
    loop {
        let before = progress.parts.load(Ordering::Relaxed);
        if let Ok(ended) = tokio::time::timeout(quiet, &mut direction).await {
            return Some(ended);
        }
        let is_same = progress.parts.load(Ordering::Relaxed) == before;
        match (is_same, progress.is_writing.load(Ordering::Relaxed)) {
            (true, false) => return None,
            (true, true) if stuck >= STUCK => return None,
            (true, true) => stuck = stuck.saturating_add(1),
            (false, _) => stuck = 0,
        }
    }
}

/// Half a minute where quiet is a second. Without it who reads no more would hold the connection for as long as its
/// session is in use.
const STUCK: u32 = 30;

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    const QUIET: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_direction_ends_by_itself_or_once_nothing_comes() {
        let progress = DirectionProgress::default();
        let ending = pin!(async { progress.write(std::future::ready(7)).await });
        assert_eq!(until_quiet(ending, &progress, Duration::from_secs(60)).await, Some(7));
        let silent = pin!(std::future::pending::<()>());
        assert_eq!(until_quiet(silent, &progress, QUIET).await, None);
    }

    #[tokio::test]
    async fn a_direction_whose_reader_takes_nothing_ends_in_time() {
        let progress = DirectionProgress::default();
        let stuck = pin!(async { progress.write(std::future::pending::<()>()).await });
        assert_eq!(until_quiet(stuck, &progress, Duration::from_millis(1)).await, None);
    }

    #[tokio::test]
    async fn a_direction_in_which_parts_come_or_wait_to_be_read_is_not_quiet() {
        let progress = DirectionProgress::default();
        let (parts, mut coming) = mpsc::channel::<oneshot::Receiver<()>>(1);
        let direction = pin!(async {
            while let Some(is_read) = coming.recv().await {
                progress.write(is_read).await.unwrap();
            }
        });
        let mut rest = pin!(until_quiet(direction, &progress, QUIET));
        for _ in 0..2 {
            let (read, is_read) = oneshot::channel();
            parts.send(is_read).await.unwrap();
            assert!(tokio::time::timeout(10 * QUIET, &mut rest).await.is_err(), "its reader takes its time");
            read.send(()).unwrap();
        }
        drop(parts);
        assert_eq!(rest.await, Some(()));
    }
}
