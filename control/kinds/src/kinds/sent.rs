//! What a client sent and an object no longer shows once it is decoded and defaulted, although rules of Kubernetes ask
//! for it: Go tells an empty list from none, and two fields of an object can be one map.
//!
//! It goes beside the object to the few kinds that have such rules: see [`BuiltIn::validate_sent`] and
//! [`BuiltIn::prepare_sent`].
//!
//! [`BuiltIn::validate_sent`]: super::BuiltIn::validate_sent
//! [`BuiltIn::prepare_sent`]: super::BuiltIn::prepare_sent

use serde_json::Value;

use super::reading::is_empty;
use crate::schema::SentEmpties;

/// What was sent.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Lists and maps that were sent empty.
    pub empties: SentEmpties,
    /// Whether the object had no labels before it was defaulted.
    pub lacks_labels: bool,
}

impl Sent {
    /// Of an object that was decoded, and is not defaulted yet.
    pub fn of(decoded: &Value, empties: SentEmpties) -> Self {
        Self { empties, lacks_labels: is_empty(&decoded["metadata"]["labels"]) }
    }
}
