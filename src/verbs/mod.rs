//! The client verbs, one file each: what they ask of the API and how they show the answer.

pub mod apply;
pub mod delete;
pub mod get;
pub mod logs;
mod target;

pub use target::target;
