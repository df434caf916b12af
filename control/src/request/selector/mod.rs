//! Label and field selectors: parsed once, then asked of an object's header.

mod field;
mod label;

pub use field::{FieldSelector, FieldSelectorError};
pub use label::{LabelRequirement, LabelSelector, LabelSelectorError};
