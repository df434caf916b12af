//! The OpenAPI documents: what kubectl reads to validate, explain and apply.

pub mod merging;
pub mod schemas;
