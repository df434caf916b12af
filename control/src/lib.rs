//! fairlead's control service: the Kubernetes API over an embedded store, its controllers and its scheduler.
//!
//! [`start`] composes the parts; each part knows nothing of the others' insides: `store` keeps bytes by key and
//! revision, `kinds` says what each served kind is, `schema` what its objects look like, `api` is the machinery written
//! once for all kinds, `admission` fills in and checks what a kind cannot know alone, `auth` says who asks and whether
//! they may, `controllers` and `scheduler` are ordinary API clients that happen to run in process, on the machinery of
//! `engine` and what `objects` reads.
//!
//! Public is what other packages and the tests of the whole use: a service to start, its certificates and join tokens,
//! what the API makes of a request, and the store.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

mod admission;
mod allocation;
pub mod api;
pub mod auth;
mod bootstrap;
mod cel;
pub mod config;
mod controllers;
mod custom;
mod encode;
mod engine;
mod field_management;
mod health;
mod identity;
pub mod kinds;
mod later;
mod metrics;
mod objects;
pub mod request;
mod rfc3339;
mod scheduler;
pub mod schema;
mod server;
mod status;
pub mod store;
mod supervise;
mod webhook;

#[cfg(test)]
#[path = "../../tests/fuzzing.rs"]
mod fuzzing;
#[cfg(test)]
#[path = "../../tests/skipped.rs"]
mod skipped;

pub use config::Config;
pub use server::{Running, StartError, start};
