//! fairlead's node agent: runs the pods of one node, gives them their network, load-balances Services and answers names.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

mod agent;
pub mod config;
pub mod dns;
#[cfg(test)]
#[path = "../../tests/fuzzing.rs"]
mod fuzzing;
pub mod https;
pub mod inspect;
pub mod network;
pub mod pods;
pub mod proxy;
pub mod register;
pub mod runtime;
mod serving_certificate;
#[cfg(test)]
#[path = "../../tests/skipped.rs"]
mod skipped;
pub mod world;

pub use agent::{Running, StartError, StopError, start};
pub use config::Config;

/// What a part leaves behind when it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teardown {
    /// Pods keep running, pins keep serving: the next agent adopts them.
    Keep,
    /// The host is left as it was before the agent ran.
    Remove,
}
