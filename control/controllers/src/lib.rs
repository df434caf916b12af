//! The controllers and the scheduler: ordinary clients of the API that happen to run in the control service's process.
//!
//! | module | what it knows |
//! |---|---|
//! | `controllers` | one file or folder per controller |
//! | `scheduler` | which node a pod runs on |
//! | `objects` | the shared watches, and what both read in objects |
//! | `engine` | informers, work queues, events, retries |

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

pub mod controllers;
pub mod engine;
pub mod later;
pub mod objects;
pub mod scheduler;

pub use fairlead_serving::supervise;
