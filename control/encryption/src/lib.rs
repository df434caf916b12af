//! Encryption at rest of the objects of some resources, configured as kube-apiserver's is: by an
//! `EncryptionConfiguration` (`apiserver.config.k8s.io/v1`), which `--encryption-provider-config` names.
//!
//! ```text
//! file ── config (strict reading) ── validation ── keyring: resource → providers → keys ── Encryption: the Seal
//!                                                                                             ▲
//!                                                        reload: a changed file, once it is good
//! ```
//!
//! What Kubernetes decides is decided alike: which entry a resource belongs to, that the first key of the first
//! provider writes and all others read, which configurations are refused, and in which words. What stands on the disk
//! is the store's own form (`fairlead_store::seal`), and values are bound to their place with every provider.
//!
//! Nouns:
//! - **seed**: what a key service encrypts and keys are derived from: see `kms/`.
//! - **provider**: an algorithm with its keys: `aesgcm`, `aescbc`, `secretbox`, `kms`; `identity` does nothing.
//! - **label**: what a value says of its key in the file: `aesgcm:v1:key1`.
//! - **key identity**: label and secret. Another secret under the same name is another key.
//!
//! Files: `entries`, `config` and `validation` (the configuration), `keyring` (who seals and opens what), `cipher` (the
//! algorithms), `interned` (keys by number), `kms/` (key services), `secret` (what is never printed).

mod cipher;
mod config;
mod encryption;
mod entries;
mod interned;
mod keyring;
mod kms;
mod resource;
mod secret;
mod validation;

pub use config::{ConfigError, FileConfiguration};
pub use encryption::{Configured, Encryption, ReplaceError, ServiceFailure, StillNeeded};
pub use resource::UNSERVED;
