//! A document that is prepared once and asked for often, and the hash that it is known by.

use bytes::Bytes;
use sha2::{Digest, Sha512};

/// The bytes of a document and what they are known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// As they are sent.
    pub bytes: Bytes,
    /// Upper-case hex. It serves as `ETag`, and a URL with it as `?hash=` may be cached for ever.
    pub hash: String,
}

impl Document {
    /// A document of these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let hash = hex::encode_upper(Sha512::digest(&bytes));
        Self { bytes, hash }
    }
}
