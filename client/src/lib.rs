//! The typed client of the Kubernetes API, for control service, node agent and CLI.
//!
//! The code that decodes a Pod is long, and a generic client compiles it anew in each crate, once per way it is called.
//! Here each kind is decoded and encoded by functions of its own that are compiled once ([`Json`]); requests
//! ([`Api`]) and watches ([`Events`]) carry JSON text and meet the type only at their edge. What is asked and when is
//! kube's: its client sends the requests, its watcher lists, watches, resumes and lists again.
//!
//! [`transport`] is how requests travel: all of a client's on one HTTP/2 connection, where the server speaks it.
//!
//! [`placement`] holds the rules by which the readers of Pods and Nodes must decide alike; [`node_silence`] what signer
//! and joining agent say to each other; [`recorder`] writes Events for all of them.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

mod api;
pub mod as_text;
mod events;
#[cfg(test)]
#[path = "../../tests/freezing_proxy.rs"]
mod freezing_proxy;
mod kinds;
pub mod node_silence;
mod null_times;
mod object;
pub mod placement;
mod raw;
pub mod recorder;
#[cfg(test)]
mod scripted;
pub mod transport;

pub use api::Api;
pub use events::{Events, metadata_events};
pub use object::{Json, Object, from_value, to_value};
