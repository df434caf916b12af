//! How answers are shown: tables, YAML, JSON, names, JSONPath.

mod format;
pub mod jsonpath;
mod table;

pub use format::{Format, print_object};
pub use table::{Grid, Table, TableStyle};
