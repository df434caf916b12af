//! fairlead's node agent: runs the pods of one node, sets up their network, load-balances Services and answers DNS
//! queries.
//!
//! Public is what the binary needs to start an agent and to say why it cannot, what its client of streams shares with
//! the agent (`spdy`, `tunnel`, `half_closed`), and the parts that the benches run alone: `dns`, `proxy` and the
//! `world` that they serve. The hot path of DNS, what the node knows and what its servers share are packages of their
//! own, beside this one.

#![warn(clippy::undocumented_unsafe_blocks)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

mod agent;
pub mod config;
mod deadline;
mod eviction_thresholds;
mod expiring_connection;
mod health;
mod https;
mod image_gc_policy;
mod inspect;
mod last_known;
pub mod mount_table;
mod network;
mod pod_connections;
mod pods;
mod private_file;
pub mod proxy;
mod register;
mod retry;
mod runtime;
mod serving_certificate;
mod streams;

#[cfg(test)]
#[path = "../../tests/freezing_proxy.rs"]
mod freezing_proxy;
#[cfg(test)]
#[path = "../../tests/fuzzing.rs"]
mod fuzzing;
#[cfg(test)]
#[path = "../../tests/skipped.rs"]
mod skipped;

pub use agent::{Running, StartError, StopError, ran_before, start};
pub use config::Config;
pub use fairlead_dns as dns;
use fairlead_serving::{client_limit, connection_limit, error_chain, supervise};
pub use fairlead_world as world;
pub use streams::{half_closed, spdy, tunnel};

/// What a part leaves behind when it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teardown {
    /// Pods keep running, pins keep serving: the next agent adopts them.
    Keep,
    /// The host is left as it was before the agent ran.
    Remove,
}
