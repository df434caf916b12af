//! Makes the objects of all rows of the file, on all cores: it is most of the work of a start.
//!
//! One thread reads rows and hands them out in batches; the others make objects of them, as `stored_header.rs` says.

use std::{
    num::NonZero,
    sync::{Arc, mpsc},
};

use parking_lot::Mutex;

use super::{
    quarantine::RowError,
    stored_header::{Made, ObjectMaker},
};
use crate::Decode;

/// A row of the table of objects, and what stands under its key in the table of headers.
pub struct Row {
    /// `resource/name`
    pub key: String,
    /// Revision and text.
    pub value: Vec<u8>,
    /// See `stored_header.rs`.
    pub header: Option<Vec<u8>>,
}

/// The key of a row, and its object.
pub type MadeRow = (String, Result<Made, RowError>);

/// Rows that are handed out together.
const BATCH: usize = 512;
/// Batches that may wait for a thread.
const QUEUE: usize = 4;

/// Makes the object of each row and gives it to `take`, in any order.
pub fn make_all<E>(
    decode: &dyn Decode,
    mut rows: impl Iterator<Item = Result<Row, E>>,
    take: &mut dyn FnMut(MadeRow),
) -> Result<(), E> {
    let mut next = || rows.by_ref().take(BATCH).collect::<Result<Vec<Row>, E>>();
    let first = next()?;
    if first.len() < BATCH {
        make_batch(decode, first).into_iter().for_each(take);
        return Ok(());
    }
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let (jobs, queue) = mpsc::sync_channel::<Vec<Row>>(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let (answers, made) = mpsc::channel();
        for _ in 0..threads {
            let (queue, answers) = (queue.clone(), answers.clone());
            scope.spawn(move || {
                loop {
                    let batch = queue.lock().recv();
                    let Ok(batch) = batch else { return };
                    if answers.send(make_batch(decode, batch)).is_err() {
                        return;
                    }
                }
            });
        }
        // The threads alone hold them now: where all have panicked, nothing waits for ever.
        drop((queue, answers));
        let mut batch = first;
        while !batch.is_empty() && jobs.send(batch).is_ok() {
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

fn make_batch(decode: &dyn Decode, rows: Vec<Row>) -> Vec<MadeRow> {
    let mut maker = ObjectMaker::new(decode);
    rows.into_iter()
        .map(|Row { key, value, header }| {
            let made = make(&mut maker, &key, &value, header.as_deref());
            (key, made)
        })
        .collect()
}

/// The object of one row.
pub fn make(maker: &mut ObjectMaker<'_>, key: &str, value: &[u8], header: Option<&[u8]>) -> Result<Made, RowError> {
    let place = key.split_once('/').ok_or(RowError::NoResource)?;
    let (revision, json) = value.split_first_chunk::<8>().ok_or(RowError::Cut)?;
    Ok(maker.make(place, (u64::from_be_bytes(*revision), json), header)?)
}
