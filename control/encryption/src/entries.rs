//! The entries of a configuration as they are written, checked or not.

use crate::secret::Secret;

/// Resources that share providers.
#[derive(Debug, Default)]
pub struct ResourceConfiguration {
    pub resources: Vec<String>,
    pub providers: Vec<ProviderConfiguration>,
}

/// One of these is given.
#[derive(Debug, Default)]
pub struct ProviderConfiguration {
    pub aesgcm: Option<Vec<Key>>,
    pub aescbc: Option<Vec<Key>>,
    pub secretbox: Option<Vec<Key>>,
    pub identity: bool,
    pub kms: Option<Kms>,
}

/// A key with its name.
#[derive(Debug, Default)]
pub struct Key {
    pub name: String,
    /// In base64.
    pub secret: Option<Secret<String>>,
}

/// A service that has the key.
#[derive(Debug)]
pub struct Kms {
    pub api_version: String,
    pub name: String,
    pub cache_size: Option<i64>,
    pub endpoint: String,
    /// In nanoseconds; a negative one is refused by the validation.
    pub timeout_ns: i64,
}
