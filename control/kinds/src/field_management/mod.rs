//! Who owns which fields of an object, and server-side apply. Pure functions of objects and of the text of
//! `metadata.managedFields`; nothing here reads or writes a store.
//!
//! ```text
//!  old, new ──compare──▶ Difference ──reset, strip──▶ what the writer owns now ─┐
//!  managedFields (text) ──managers──▶ Managers ──disown──▶ what others still own┴─▶ managedFields (text)
//!
//!  live, config ──merge──▶ merged ──prune──▶ object ──compare──▶ what changes ∩ what others own = conflicts
//! ```
//!
//! - **Manager**: who writes: a name, how it writes (apply or update), the version and subresource it uses.
//! - **Field set**: a tree of path elements; `FieldsV1` is its text.
//! - **Shape**: how a value is owned: as a whole, by field, by key, or by item. The schema says so.
//! - **Leaf**: a value that is owned as a whole.
//! - **Configuration**: what a client applies: the part of an object that it has an opinion on.
//!
//! | file | what it knows |
//! |---|---|
//! | `path`, `set`, `fields_v1` | path elements, sets of them, their text |
//! | `shape` | schema → how values are owned; the keys of list items |
//! | `leaves`, `compare`, `whole` | what an object says, what changed |
//! | `merge`, `remove`, `check` | how objects are combined |
//! | `managers` | the entries of `managedFields` |
//! | `versions`, `reconcile` | objects in the versions that managers used; sets made under an older schema |
//! | `reset` | what a write cannot own |
//! | `tracker` | who owns what after any write but an apply |
//! | `overlay` | what a mutating policy applies: merged in the same way, and nobody's |
//! | `apply`, `prune`, `conflict`, `last_applied` | server-side apply |
//! | `manager_name` | the name for a request |
//!
//! Kubernetes' names for these: package `managedfields` of apimachinery, and structured-merge-diff.

mod apply;
mod check;
mod compare;
mod conflict;
mod fields_v1;
mod last_applied;
mod leaves;
pub mod manager_name;
mod managers;
mod merge;
mod overlay;
mod path;
mod prune;
mod reconcile;
mod remove;
mod reset;
mod set;
mod shape;
#[cfg(test)]
mod tests;
mod tracker;
mod versions;
mod whole;

pub use managers::{same_but_times, text_of};
pub use overlay::{OverlayError, overlay};
pub use tracker::{ManagersText, Tracker};
