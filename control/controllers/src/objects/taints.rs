//! The taints that Kubernetes itself puts on nodes; effects and tolerations are in `fairlead_client::placement`.

pub use fairlead_client::placement::{NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE, covers};

/// Taint of cordoned nodes.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Taint of nodes that report that they are not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of nodes that stopped reporting.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
