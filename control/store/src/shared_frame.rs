//! Watch frames that many readers share: an object's text as one piece of memory, and its second encoding, each made by
//! the first reader who asks for it.
//!
//! An object refers to its frames weakly. Who keeps them is decided here: those that were used of late, as long as they
//! are not too many. What the second encoding is, the store does not know.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

/// A frame; the message of the object alone is its end.
#[derive(Debug)]
pub struct SharedFrame {
    frame: Bytes,
    message_at: usize,
    used: AtomicBool,
}

/// The frames that are kept, from the oldest, and how many bytes they have.
static KEPT: Mutex<(VecDeque<Arc<SharedFrame>>, usize)> = Mutex::new((VecDeque::new(), 0));
/// How many bytes of frames are kept: a list of ten thousand objects can be asked for again.
const MAX_BYTES: usize = 64 << 20;
/// From here on the rest is for frames of changes: a list that takes more would drop all frames, its own first ones
/// among them.
const MAX_BYTES_OF_LISTS: usize = MAX_BYTES / 4 * 3;

impl SharedFrame {
    /// Keeps a frame that ends in a message of `message_length` bytes, until it was not used for a while.
    pub fn keep(frame: Bytes, message_length: usize) -> Arc<Self> {
        let message_at = frame.len().saturating_sub(message_length);
        let shared = Arc::new(Self { frame, message_at, used: AtomicBool::new(true) });
        // Freed when the lock is not held any more.
        let mut dropped = Vec::new();
        {
            let (frames, bytes) = &mut *KEPT.lock();
            *bytes = bytes.saturating_add(shared.frame.len());
            frames.push_back(shared.clone());
            while *bytes > MAX_BYTES
                && let Some(oldest) = frames.pop_front()
            {
                *bytes = bytes.saturating_sub(oldest.frame.len());
                dropped.push(oldest);
            }
        }
        drop(dropped);
        shared
    }

    /// Whether a list may keep frames that nobody has made yet.
    pub fn has_room() -> bool {
        KEPT.lock().1 < MAX_BYTES_OF_LISTS
    }

    /// Drops the frames that nobody used since the last call.
    pub fn drop_unused() {
        // Freed when the lock is not held any more.
        let unused: VecDeque<Arc<Self>>;
        {
            let (frames, bytes) = &mut *KEPT.lock();
            (*frames, unused) = frames.drain(..).partition(|frame| frame.used.swap(false, Ordering::Relaxed));
            *bytes = frames.iter().map(|frame| frame.frame.len()).sum();
        }
        drop(unused);
    }

    /// The whole frame.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The message of the object.
    pub fn message(&self) -> Bytes {
        self.frame.slice(self.message_at..)
    }

    /// Notes that somebody used it.
    pub(crate) fn used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_leave_room_for_changes_and_what_is_not_used_goes() {
        let frame = || SharedFrame::keep(Bytes::from(vec![0; MAX_BYTES / 8]), 0);
        while SharedFrame::has_room() {
            frame();
        }
        let kept = Arc::downgrade(&frame());
        assert!(kept.upgrade().is_some(), "there is room for a change");
        // Other tests may do the same.
        SharedFrame::drop_unused();
        SharedFrame::drop_unused();
        assert!(kept.upgrade().is_none() && SharedFrame::has_room());
    }
}
