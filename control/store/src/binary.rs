//! A second encoding of an object's watch frame, made by the first reader who asks for it.
//!
//! The store keeps it beside the text, so that every list and watcher after shares it, and drops it when no one used it
//! for a while. What the encoding is, the store does not know.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;

/// A frame in the second encoding; the message of the object alone is its end.
#[derive(Debug)]
pub struct BinaryFrame {
    frame: Bytes,
    message_at: usize,
    used: AtomicBool,
}

/// How many there are: without any, nothing has to be looked through to drop them.
static KEPT: AtomicUsize = AtomicUsize::new(0);

impl BinaryFrame {
    /// A frame that ends in a message of `message_length` bytes.
    pub fn new(frame: Bytes, message_length: usize) -> Self {
        KEPT.fetch_add(1, Ordering::Relaxed);
        let message_at = frame.len().saturating_sub(message_length);
        Self { frame, message_at, used: AtomicBool::new(true) }
    }

    /// Whether any object has one.
    pub fn any() -> bool {
        KEPT.load(Ordering::Relaxed) > 0
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
    pub fn used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Whether somebody used it since the last call.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

impl Drop for BinaryFrame {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}
