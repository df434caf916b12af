//! A toy of a cipher, for tests of what is sealed and when.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU16, Ordering},
};

use super::{packed_rows::Program, *};
use crate::{
    DamagedBases, OpenError,
    seal::{OpenedValue, Seal, SealError, SealKey, Sealed, UnsealError},
};

/// What no file may have.
pub const MARKER: &str = "opensesame";

/// Seals the resource `things` with a toy of a cipher. Keys are numbers, and their labels have the last digit: 1 and 11
/// are two secrets under one name.
#[derive(Clone)]
pub struct Toy(pub Arc<ToyKeys>);

pub struct ToyKeys {
    /// Seals; 0 for none.
    pub writer: AtomicU16,
    /// Open.
    pub readers: Mutex<Vec<u16>>,
    pub reads_plain: AtomicBool,
    /// Nothing is sealed.
    pub fails: AtomicBool,
    /// Nothing is opened, since a key service is away.
    pub is_away: AtomicBool,
}

impl Toy {
    pub fn new(writer: u16, readers: &[u16]) -> Self {
        Self(Arc::new(ToyKeys {
            writer: AtomicU16::new(writer),
            readers: Mutex::new(readers.to_vec()),
            reads_plain: AtomicBool::new(true),
            fails: AtomicBool::new(false),
            is_away: AtomicBool::new(false),
        }))
    }

    pub fn open(&self, path: &Path) -> Result<Embedded, OpenError> {
        self.open_damaged(path, DamagedBases::Refuse)
    }

    pub fn open_damaged(&self, path: &Path, damaged: DamagedBases) -> Result<Embedded, OpenError> {
        Embedded::open_sealed(path, Program::new(1), damaged, Some(Arc::new(self.clone())))
    }
}

/// Each byte of a value with a byte of a key that follows from number and place, and a sum of both.
fn toy(number: u16, associated: &[u8], value: &[u8]) -> Vec<u8> {
    let key = associated.iter().fold(u32::from(number).wrapping_add(77), |key, byte| {
        key.rotate_left(5).wrapping_mul(0x9e37_79b1) ^ u32::from(*byte)
    });
    value.iter().enumerate().map(|(at, byte)| byte ^ (key.rotate_left(at as u32 % 31) as u8) ^ 0xa5).collect()
}

impl Seal for Toy {
    fn key(&self, resource: &str) -> SealKey {
        SealKey::new(if resource == "things" { self.0.writer.load(Ordering::Relaxed) } else { 0 })
    }

    fn reads_plain(&self, _: &str) -> bool {
        self.0.reads_plain.load(Ordering::Relaxed)
    }

    fn seal(&self, resource: &str, associated: &[u8], value: &[u8]) -> Result<Option<Sealed>, SealError> {
        let key = self.key(resource);
        if key == SealKey::PLAIN {
            return Ok(None);
        }
        if self.0.fails.load(Ordering::Relaxed) {
            let source = Arc::new(std::io::Error::other("the key service is away"));
            return Err(SealError { resource: resource.into(), source });
        }
        let sum = crc32fast::hash(&[associated, value].concat());
        let body = toy(key.number(), associated, &[&sum.to_be_bytes()[..], value].concat());
        Ok(Some(Sealed { key, label: format!("toy:{}", key.number() % 10).into(), body }))
    }

    fn open(&self, _: &str, associated: &[u8], label: &str, body: &[u8]) -> Result<OpenedValue, UnsealError> {
        if self.0.is_away.load(Ordering::Relaxed) {
            let source = Arc::new(std::io::Error::other("connection refused"));
            return Err(UnsealError::Service { label: label.into(), source });
        }
        let digit: u16 = label.strip_prefix("toy:").and_then(|number| number.parse().ok()).unwrap_or_default();
        let readers = self.0.readers.lock().unwrap().clone();
        let mut keys = readers.into_iter().filter(|number| number % 10 == digit).peekable();
        if keys.peek().is_none() {
            return Err(UnsealError::NoKey { label: label.into() });
        }
        let opened = keys.find_map(|number| {
            let value = toy(number, associated, body);
            let (sum, value) = value.split_first_chunk::<4>()?;
            let is_right = crc32fast::hash(&[associated, value].concat()) == u32::from_be_bytes(*sum);
            is_right.then(|| OpenedValue { key: SealKey::new(number), value: value.to_vec() })
        });
        opened.ok_or_else(|| UnsealError::DoesNotOpen { label: label.into() })
    }
}

pub fn contains(bytes: &[u8]) -> bool {
    bytes.windows(MARKER.len()).any(|part| part == MARKER.as_bytes())
}
