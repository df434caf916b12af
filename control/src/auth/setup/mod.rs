//! From flags and files to those who authenticate and decide: once at the start, and again as files change.

pub mod authentication;
pub mod authorization;
pub mod reload;
