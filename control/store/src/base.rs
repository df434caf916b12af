//! A base: a text against which other texts are encoded (`delta.rs`). Objects share it, in memory and in the file.
//!
//! In the file it has a number, by which the rows of its objects name it. Who gives the numbers, and when a base leaves
//! the file, is decided in `embedded/stored_base.rs`.

use std::sync::{Arc, OnceLock};

/// A text against which others are encoded.
#[derive(Debug)]
pub struct Base {
    text: Box<[u8]>,
    /// CRC-32 of the text.
    sum: OnceLock<u32>,
    /// Its number in the file, if it was ever given one.
    number: OnceLock<u64>,
}

impl Base {
    /// A base that the file does not know.
    pub fn new(text: &[u8]) -> Arc<Self> {
        Arc::new(Self { text: text.into(), sum: OnceLock::new(), number: OnceLock::new() })
    }

    /// A base that the file has under a number.
    pub fn stored(number: u64, text: &[u8]) -> Arc<Self> {
        Arc::new(Self { text: text.into(), sum: OnceLock::new(), number: OnceLock::from(number) })
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// CRC-32 of the text.
    pub fn sum(&self) -> u32 {
        *self.sum.get_or_init(|| crc32fast::hash(&self.text))
    }

    /// Its number; the first time, it is given one.
    pub fn number_or(&self, give: impl FnOnce() -> u64) -> u64 {
        *self.number.get_or_init(give)
    }
}
