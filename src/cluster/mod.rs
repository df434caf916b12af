//! The client's side of the API: which cluster is meant, what it serves, and one request at a time.
//!
//! Objects are plain JSON here: the CLI never needs to know a kind to carry it, so nothing a server sends is lost.

mod connect;
mod path;
mod refusal;
mod request;
mod resource;
mod selection;

pub use connect::{ConnectArgs, connect};
pub use path::{object_path, resource_path, with_query};
pub use refusal::ApiError;
pub use request::{Cluster, PatchType, TABLE};
pub use resource::{ResourceType, Resources};
pub use selection::{Selection, select};
