//! What the servers and tasks of the control service and of a node have in common: they are kept running, no client
//! takes all of them, connections have time limits, and their errors say why.
//!
//! It knows nothing of the API, pods, Services or names, so that the parts that do need not know each other.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

pub mod bulk_reads;
pub mod client_limit;
pub mod connection_limit;
mod error_chain;
pub mod guarded_body;
pub mod http_connection;
pub mod idle_http1;
pub mod supervise;

pub use error_chain::error_chain;
