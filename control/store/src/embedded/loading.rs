//! Makes the objects of all rows of the file, on all cores.
//!
//! One thread reads rows and hands them out in batches; the others make objects of them, as `packed_row.rs` says.

use std::{
    num::NonZero,
    sync::{Arc, mpsc},
};

use parking_lot::Mutex;

use super::packed_row::{Made, ObjectMaker, RowDecoder, RowError};

/// Rows that are handed out together, with their keys.
#[derive(Default)]
pub struct Batch {
    keys: String,
    rows: Vec<u8>,
    /// Where each key and each row ends.
    ends: Vec<(usize, usize)>,
}

/// An object; or the key of a row that cannot be read.
pub type MadeRow = Result<Made, (String, RowError)>;

/// How many rows and bytes a batch has.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;
/// Batches that may wait for a thread.
const QUEUE: usize = 8;

impl Batch {
    /// Adds a row.
    pub fn push(&mut self, key: &str, row: &[u8]) {
        self.keys.push_str(key);
        self.rows.extend_from_slice(row);
        self.ends.push((self.keys.len(), self.rows.len()));
    }

    /// Whether it is to be handed out.
    pub fn is_full(&self) -> bool {
        self.ends.len() >= BATCH || self.rows.len() >= BATCH_BYTES
    }

    fn make(&self, maker: &mut ObjectMaker<'_>) -> Vec<MadeRow> {
        let mut begin = (0, 0);
        let rows = self.ends.iter().map(|end| {
            let row = (&self.keys[begin.0..end.0], &self.rows[begin.1..end.1]);
            begin = *end;
            row
        });
        rows.map(|(key, row)| maker.make(key, row).map_err(|error| (key.to_owned(), error))).collect()
    }
}

/// Makes the objects of all batches that `next` reads, until one is not full, and gives them to `take`, in any order.
pub fn make_all<E>(
    with: RowDecoder<'_>,
    mut next: impl FnMut() -> Result<Batch, E>,
    take: &mut dyn FnMut(MadeRow),
) -> Result<(), E> {
    let mut batch = next()?;
    if !batch.is_full() {
        batch.make(&mut ObjectMaker::new(with)).into_iter().for_each(take);
        return Ok(());
    }
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let (jobs, queue) = mpsc::sync_channel::<Batch>(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let (answers, made) = mpsc::channel();
        for _ in 0..threads {
            let (queue, answers) = (queue.clone(), answers.clone());
            scope.spawn(move || {
                let mut maker = ObjectMaker::new(with);
                loop {
                    let batch = queue.lock().recv();
                    let Ok(batch) = batch else { return };
                    if answers.send(batch.make(&mut maker)).is_err() {
                        return;
                    }
                }
            });
        }
        // The threads alone hold them now: where all have panicked, nothing waits for ever.
        drop((queue, answers));
        loop {
            let more = batch.is_full();
            if jobs.send(batch).is_err() || !more {
                break;
            }
            while let Ok(made) = made.try_recv() {
                made.into_iter().for_each(&mut *take);
            }
            batch = next()?;
        }
        drop(jobs);
        made.into_iter().flatten().for_each(take);
        Ok(())
    })
}
