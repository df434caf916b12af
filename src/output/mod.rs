//! How answers are shown: tables, YAML, JSON, names, JSONPath.

mod age;
mod format;
pub mod jsonpath;
mod table;

pub use age::age;
pub use format::{Format, print_object, print_whole};
pub use table::{Grid, Table, TableStyle};
