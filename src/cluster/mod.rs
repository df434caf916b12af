//! The client's side of the API: which cluster is used, what it serves, one request at a time, and one watch that
//! resumes.
//!
//! Objects are plain JSON here: the CLI never needs to know a kind to carry it, so nothing a server sends is lost.

mod connect;
#[cfg(test)]
pub mod fake;
mod frame;
mod path;
mod refusal;
mod request;
mod resource;
mod selection;
mod stream;
mod watch;

pub use connect::{ConnectArgs, connect};
pub use path::{check_name, field_equals, object_path, resource_path, segment, with_query};
pub use refusal::ApiError;
pub use request::{Cluster, PatchType, TABLE};
pub use resource::{ResourceType, Resources};
pub use selection::{select, select_one};
pub use stream::Socket;
pub use watch::{Representation, Scope, Watch, WatchChange, until};

/// Where all state is kept unless `--data-dir` says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/fairlead";
