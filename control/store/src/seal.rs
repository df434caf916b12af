//! Sealing: what becomes of an object's value before it reaches the disk, where its resource is encrypted at rest.
//!
//! ```text
//! commit ── packed row of the object ── seal ──▶ log ─ ─ the same bytes ─ ─▶ tables, quarantine, copies
//! opening ◀── object ◀── packed row ◀── open ──┘
//! ```
//!
//! A value is sealed once, by the committer, before its batch is written; from then on the file moves the sealed bytes
//! about and never needs the key. So neither a checkpoint nor a copy can fail for want of a key, and a key that nothing
//! but old log records name may be gone. Sealed objects have no base in the file: a base is a text of another object.
//! In memory all objects are plain.
//!
//! Whether and with which key to seal is decided by who implements [`Seal`].

use std::{collections::BTreeMap, error::Error, fmt, sync::Arc};

/// A key under which values are sealed, for as long as the process runs. In the file it has a label instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealKey(u16);

impl SealKey {
    /// Values that are not sealed.
    pub const PLAIN: Self = Self(0);

    /// The key with this number, which counts from 1.
    pub fn new(number: u16) -> Self {
        Self(number)
    }

    /// Its number; 0 for none.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// What stands for the label of values that are not sealed: the provider that reads them.
pub const PLAIN_LABEL: &str = "identity";

/// Seals and opens values. Calls must not wait for others but in [`Seal::open`].
pub trait Seal: Send + Sync {
    /// The key that seals the next value of a resource; [`SealKey::PLAIN`] where its values are stored as they are.
    fn key(&self, resource: &str) -> SealKey;

    /// Whether values of a resource that are stored as they are may be read.
    fn reads_plain(&self, resource: &str) -> bool;

    /// Seals a value, bound to `associated`. Nothing where values of the resource are stored as they are.
    fn seal(&self, resource: &str, associated: &[u8], value: &[u8]) -> Result<Option<Sealed>, SealError>;

    /// Opens a value that was sealed under the key with this label. May wait for a service that has the key.
    fn open(&self, resource: &str, associated: &[u8], label: &str, body: &[u8]) -> Result<OpenedValue, UnsealError>;
}

/// A sealed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The key.
    pub key: SealKey,
    /// Names algorithm and key in the file: `aesgcm:v1:key1`. It has 65,535 bytes at the most.
    pub label: Arc<str>,
    /// What needs the key to be read.
    pub body: Vec<u8>,
}

/// A value that was opened.
pub struct OpenedValue {
    /// The key that it was sealed under.
    pub key: SealKey,
    /// The value.
    pub value: Vec<u8>,
}

/// A value cannot be sealed, and its write is refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot encrypt an object of {resource}")]
pub struct SealError {
    /// `secrets`
    pub resource: String,
    /// Why.
    #[source]
    pub source: Arc<dyn Error + Send + Sync>,
}

/// A sealed value cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnsealError {
    /// Configure the key again.
    #[error("no key {label} is configured for its resource")]
    NoKey {
        /// See [`Sealed::label`].
        label: String,
    },
    /// The key is another one of the same name, or the value was changed or moved by someone.
    #[error("it does not open under the key {label}")]
    DoesNotOpen {
        /// See [`Sealed::label`].
        label: String,
    },
    /// The service that has the key does not answer, or refuses.
    #[error("the service with the key {label} did not decrypt it")]
    Service {
        /// See [`Sealed::label`].
        label: String,
        /// What it said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// It is no sealed value.
    #[error("it is no sealed value")]
    Malformed,
    /// It is stored as it is, and its resource is configured to be encrypted without exception.
    #[error("it is not encrypted, and no provider `identity` is configured for its resource")]
    Plain,
}

impl UnsealError {
    /// The label of the key that the value names, or [`PLAIN_LABEL`].
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::NoKey { label } | Self::DoesNotOpen { label } | Self::Service { label, .. } => Some(label),
            Self::Plain => Some(PLAIN_LABEL),
            Self::Malformed => None,
        }
    }
}

/// The keys that values need which the start has kept aside: how many values of which resource name which label. Those
/// that are not sealed are under [`PLAIN_LABEL`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuarantinedKeys(BTreeMap<(Box<str>, Box<str>), u64>);

impl QuarantinedKeys {
    /// A value of a resource names the key with this label.
    pub fn add(&mut self, resource: &str, label: &str) {
        let count = self.0.entry((resource.into(), label.into())).or_default();
        *count = count.saturating_add(1);
    }

    /// Resource, label, and how many values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.0.iter().map(|((resource, label), count)| (&**resource, &**label, *count))
    }
}

/// What a sealed value is of: another kind of value does not open in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A packed row: see `embedded/packed_row.rs`.
    Row,
    /// What the history knows of a change: see `embedded/stored_history.rs`.
    Before,
}

/// What a value is bound to: it opens nowhere else. Kubernetes binds it to the object's path; here it is bound to the
/// revision, too, which stands beside it unsealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding<'a> {
    /// `resource/name`
    pub key: &'a str,
    /// Of the write.
    pub revision: u64,
    pub form: Form,
}

impl Binding<'_> {
    fn resource(&self) -> &str {
        self.key.split_once('/').map_or("", |(resource, _)| resource)
    }

    fn associated(&self) -> Vec<u8> {
        let form = match self.form {
            Form::Row => 0,
            Form::Before => 1,
        };
        [&[form], &self.revision.to_be_bytes()[..], self.key.as_bytes()].concat()
    }

    /// The sealed bytes as they stand in the file: length of the label (2 bytes, big endian), label, body. Nothing
    /// where the value is to be stored as it is.
    pub fn seal(&self, seal: &dyn Seal, value: &[u8]) -> Result<Option<(SealKey, Vec<u8>)>, SealError> {
        let Some(sealed) = seal.seal(self.resource(), &self.associated(), value)? else { return Ok(None) };
        let label = sealed.label.as_bytes();
        let length = u16::try_from(label.len()).map_err(|error| {
            let resource = self.resource().to_owned();
            SealError { resource, source: Arc::new(error) }
        })?;
        let mut bytes = Vec::with_capacity(sealed.body.len().saturating_add(label.len()).saturating_add(2));
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(label);
        bytes.extend_from_slice(&sealed.body);
        Ok(Some((sealed.key, bytes)))
    }

    /// Opens what [`Self::seal`] made.
    pub fn open(&self, seal: Option<&dyn Seal>, sealed: &[u8]) -> Result<OpenedValue, UnsealError> {
        let (label, body) = split(sealed).ok_or(UnsealError::Malformed)?;
        match seal {
            None => Err(UnsealError::NoKey { label: label.to_owned() }),
            Some(seal) => seal.open(self.resource(), &self.associated(), label, body),
        }
    }
}

/// The label of the key that sealed bytes name.
pub(crate) fn label(sealed: &[u8]) -> Option<&str> {
    split(sealed).map(|(label, _)| label)
}

fn split(sealed: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = sealed.split_first_chunk::<2>()?;
    let (label, body) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(label).ok()?, body))
}

/// Who seals what the file gets; nobody where nothing is encrypted.
#[derive(Clone, Default)]
pub(crate) struct Sealer(Option<Arc<dyn Seal>>);

impl Sealer {
    pub fn new(seal: Option<Arc<dyn Seal>>) -> Self {
        Self(seal)
    }

    pub fn get(&self) -> Option<&dyn Seal> {
        self.0.as_deref()
    }

    /// The key that seals the next value of a resource.
    pub fn key(&self, resource: &str) -> SealKey {
        self.get().map_or(SealKey::PLAIN, |seal| seal.key(resource))
    }

    /// Whether the next value of a resource is sealed.
    pub fn seals(&self, resource: &str) -> bool {
        self.key(resource) != SealKey::PLAIN
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealer").field(&self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_sealed_value_have_no_label() {
        assert_eq!(split(b"\0\x03abcbody"), Some(("abc", &b"body"[..])));
        assert_eq!(split(b"\0\0"), Some(("", &b""[..])));
        for bad in [&b""[..], b"\0", b"\0\x04abc", b"\0\x01\xff"] {
            assert_eq!(split(bad), None);
        }
    }

    #[test]
    fn what_a_value_is_bound_to_tells_values_apart() {
        let binding = Binding { key: "secrets/a/b", revision: 7, form: Form::Row };
        let others = [
            Binding { key: "secrets/a/c", ..binding },
            Binding { revision: 8, ..binding },
            Binding { form: Form::Before, ..binding },
        ];
        assert_eq!(binding.resource(), "secrets");
        for other in others {
            assert_ne!(binding.associated(), other.associated(), "{other:?}");
        }
    }
}
