//! fairlead's control service: the Kubernetes API over an embedded store, its controllers and its scheduler.
//!
//! [`start`] composes the parts; each part knows nothing of the others' insides: `store` keeps bytes by key and
//! revision, `kinds` says what each served kind is, `schema` what its objects look like, `api` is the machinery written
//! once for all kinds, `admission` fills in and checks what a kind cannot know alone, `auth` says who asks and whether
//! they may, `controllers` and `scheduler` are ordinary API clients that happen to run in process, on the machinery of
//! `engine` and what `objects` reads.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

pub mod admission;
pub mod allocation;
pub mod api;
pub mod auth;
mod bootstrap;
pub mod cel;
pub mod config;
pub mod controllers;
pub mod custom;
mod encode;
pub mod engine;
mod health;
pub mod identity;
pub mod kinds;
mod later;
pub mod metrics;
pub mod objects;
pub mod request;
mod rfc3339;
pub mod scheduler;
pub mod schema;
pub mod server;
pub mod status;
pub mod store;
pub mod supervise;
pub mod webhook;

#[cfg(test)]
#[path = "../../tests/fuzzing.rs"]
mod fuzzing;
#[cfg(test)]
#[path = "../../tests/skipped.rs"]
mod skipped;

pub use config::Config;
pub use server::{Running, StartError, start};
