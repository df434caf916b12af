//! The roles that this binary can take in a cluster, and the settings they share.

mod access_flags;
mod audit_flags;
pub mod config_file;
mod flag_values;
pub mod node;
mod privileges;
pub mod server;
mod settings;
mod shutdown;
pub mod token;
pub mod up;

pub use flag_values::parse_duration;
pub use settings::LogFormat;
