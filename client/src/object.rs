//! What a type must be able to do to be used with [`Api`](crate::Api) and [`Events`](crate::Events).

use std::fmt::Debug;

use kube::Resource;
use serde_json::Value;

/// A type of the API that is read from JSON text and written to it by functions of its own.
///
/// The types that have it are listed in `kinds.rs`. Their functions are not generic, so they are compiled there alone.
pub trait Json: Sized {
    /// Reads a value; unknown fields are ignored.
    fn decode(json: &[u8]) -> serde_json::Result<Self>;

    /// Writes the value as compact JSON.
    fn encode(&self) -> serde_json::Result<Vec<u8>>;
}

/// A kind of the API.
pub trait Object: Json + Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static {}

impl<K: Json + Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static> Object for K {}

/// Reads an object out of a JSON value, through its text: for what happens seldom, such as a registration.
pub fn from_value<T: Json>(value: &Value) -> serde_json::Result<T> {
    T::decode(&serde_json::to_vec(value)?)
}

/// Writes an object as a JSON value, through its text: for what happens seldom, such as a status that changed.
pub fn to_value<T: Json>(object: &T) -> serde_json::Result<Value> {
    serde_json::from_slice(&object.encode()?)
}
