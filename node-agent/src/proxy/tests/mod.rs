//! The datapath on the real kernel: namespaces as pods and nodes, a cgroup of its own, real servers and client
//! processes. Needs root and BPF; says so where it is skipped.

mod affinity;
mod client;
mod cluster_ip;
mod host_port;
mod inspect;
mod last_known;
mod namespace;
mod node;
mod node_port;
mod packets;
mod resets;
mod restart;
mod truth_table;
mod two_nodes;
