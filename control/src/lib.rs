//! fairlead's control service: the Kubernetes API over an embedded store, its controllers and its scheduler.
//!
//! [`start`] composes the parts; each part knows nothing of the others' insides. Five are crates of their own:
//! `fairlead-store` keeps bytes by key and revision, `fairlead-encryption` encrypts them at rest, `fairlead-kinds` says
//! what each served kind is and what its objects look like, `fairlead-pki` makes keys and certificates,
//! `fairlead-controllers` has the controllers and the scheduler, which are ordinary API clients that happen to run in
//! process. Here `api` is the machinery written once for all kinds, `admission` fills in and checks what a kind cannot
//! know alone, `auth` says who asks and whether they may.
//!
//! Public is what other packages and the tests of the whole use: a service to start, its certificates and join tokens,
//! what the API makes of a request, and the store.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

mod admission;
pub mod admission_plugins;
mod aggregation;
mod allocation;
pub mod api;
pub mod audit;
pub mod auth;
mod bootstrap;
pub mod config;
mod deadline;
mod definitions;
mod document;
mod encode;
mod encryption_reload;
pub mod features;
mod file_follower;
mod flow_control;
mod health;
mod json_kind;
mod metrics;
pub mod patch;
mod proxy_headers;
mod reflector;
pub mod request;
mod server;
#[cfg(test)]
#[path = "../../tests/skipped.rs"]
mod skipped;
#[cfg(test)]
#[path = "../store/src/tests/small_disk.rs"]
mod small_disk;
#[cfg(test)]
mod tests;
mod upgrade;
mod webhook;

#[cfg(test)]
#[path = "../../tests/fuzzing.rs"]
mod fuzzing;

pub use config::Config;
use fairlead_controllers::{controllers, engine, later, scheduler, supervise};
use fairlead_kinds::{cel, custom, field_management, rfc3339, status, warnings};
pub use fairlead_kinds::{kinds, schema};
use fairlead_pki::identity;
pub use fairlead_store as store;
pub use server::{Running, StartError, start};
