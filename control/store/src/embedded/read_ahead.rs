//! Reads a file ahead of those who read its pages one by one: in long pieces and in its order, so that their pages are
//! in the system's cache when they come to them. A start would wait for the disk at every other page otherwise.
//!
//! Nothing depends on it: where the file cannot be read, those who need it say so.

use std::{
    fs,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

/// Reads until it is dropped, or has read all.
pub struct ReadAhead {
    stop: Arc<AtomicBool>,
    /// How many bytes were read.
    read: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// Of a longer file, the rest is left to those who need it: the cache may not hold more.
const MOST: u64 = 4 << 30;

impl ReadAhead {
    /// Starts to read the file in a thread of its own.
    pub fn start(path: &Path) -> Self {
        let (stop, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = fs::File::open(path).ok().and_then(|file| {
            let (stop, read) = (stop.clone(), read.clone());
            let work = move || read_all(&file, &stop, &read);
            std::thread::Builder::new().name("store-read-ahead".into()).spawn(work).ok()
        });
        Self { stop, read, thread }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that read the store's file ahead had panicked");
        }
        tracing::debug!(bytes = self.read.load(Ordering::Relaxed), "read ahead");
    }
}

fn read_all(file: &fs::File, stop: &AtomicBool, read: &AtomicU64) {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) && read.load(Ordering::Relaxed) < MOST {
        let Some(data) = next_data(file, at) else { return };
        match file.read_at(&mut piece, data) {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                at = data.saturating_add(length as u64);
                read.fetch_add(length as u64, Ordering::Relaxed);
            }
        }
    }
}

/// Where bytes stand next that take space on the disk. Nothing after the last of them.
fn next_data(file: &fs::File, at: u64) -> Option<u64> {
    let at = libc::off_t::try_from(at).ok()?;
    // SAFETY: the descriptor is open for as long as `file` lives, and the call touches no memory of this process.
    u64::try_from(unsafe { libc::lseek(file.as_raw_fd(), at, libc::SEEK_DATA) }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_space_is_read_to_the_end_and_holes_are_left_out() {
        let file = tempfile::tempfile().unwrap();
        let bytes = vec![1; 3 * PIECE / 2];
        file.write_all_at(&bytes, 0).unwrap();
        file.write_all_at(&bytes, 64 << 20).unwrap();
        let read = AtomicU64::new(0);
        read_all(&file, &AtomicBool::new(false), &read);
        let read = read.into_inner();
        assert!((2 * bytes.len() as u64..16 << 20).contains(&read), "{read}");
    }

    #[test]
    fn it_ends_when_it_is_stopped_and_without_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&vec![1; 8 * PIECE], 0).unwrap();
        let read = AtomicU64::new(0);
        read_all(file.as_file(), &AtomicBool::new(true), &read);
        assert_eq!(read.into_inner(), 0);
        drop(ReadAhead::start(file.path()));
        assert!(ReadAhead::start(Path::new("/nonexistent/store")).thread.is_none());
    }
}
