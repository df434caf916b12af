//! Where a pod may run: the rules about nodes that scheduler, controllers and node agents all decide by. Pure.
//!
//! - `node_affinity`: node selectors and node affinity
//! - `taints`: taints of nodes, and the tolerations of pods
//! - `host_port`: ports of a node that a pod takes

mod host_port;
mod node_affinity;
mod taints;

pub use host_port::HostPort;
pub use node_affinity::NodeAffinity;
pub use taints::{NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE, covers};
