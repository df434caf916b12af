//! The Kubernetes API machinery, written once for all kinds.

pub mod convert;
pub mod discovery;
pub mod node_proxy;
pub mod openapi;
pub mod patch;
pub mod status;

pub use status::{Status, Subject};
