//! Subresources that are not the object itself, and kinds that are answered and forgotten.

pub mod binding;
pub mod eviction;
pub mod review;
pub mod scale;
