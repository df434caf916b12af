//! Serves what CustomResourceDefinitions define: `controller` keeps the registry of kinds and their objects in step
//! with the stored definitions, `requests` writes their status and deletes their objects, `conversion` has objects
//! converted by webhooks, `ownership` those that an account of owners looks at. What a definition means is in
//! [`crate::custom`].

pub mod controller;
pub mod conversion;
mod converted;
mod converted_object;
pub mod ownership;
mod requests;
