//! What the objects of the API are: their kinds, their types, and the rules that they must follow. Nothing here does
//! I/O.
//!
//! | module | what it knows |
//! |---|---|
//! | `kinds` | each kind as data: names, columns, defaults, validation, what may change |
//! | `schema` | the types of all kinds as data, and decoding by them |
//! | `custom` | kinds that come from CustomResourceDefinitions |
//! | `cel` | the expressions of rules and policies |
//! | `field_management` | who owns which field (`managedFields`), and server-side apply |
//! | `status` | what the API answers when it refuses |
//! | `warnings` | what an answer warns of |

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "what panics in a test fails it"))]

pub mod cel;
pub mod custom;
pub mod field_management;
pub mod kinds;
pub mod rfc3339;
pub mod schema;
pub mod status;
pub mod warnings;

#[cfg(test)]
#[path = "../../../tests/fuzzing.rs"]
mod fuzzing;
