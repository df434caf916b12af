//! The roles that this binary can take in a cluster, and the settings they share.

mod access_flags;
mod audit_flags;
pub mod config_file;
pub mod node;
mod privileges;
pub mod server;
mod settings;
mod shutdown;
pub mod token;
pub mod up;

pub use settings::{LogFormat, parse_duration};
