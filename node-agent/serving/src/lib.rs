//! What the servers and tasks of a node have in common: they are kept running, no client takes all of them, and their
//! errors say why. The control service limits connections by the same rules.
//!
//! It knows nothing of pods, Services or names, so that the parts of the agent that do need not know each other.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

pub mod client_limit;
pub mod connection_limit;
mod error_chain;
pub mod supervise;

pub use error_chain::error_chain;
