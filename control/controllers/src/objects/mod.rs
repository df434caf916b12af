//! What the scheduler and the controllers both know of the API's objects: the shared watches, and pure readings of
//! single objects.

pub mod candidates;
#[cfg(test)]
pub mod fixtures;
pub mod informer_index;
pub mod informers;
pub mod int_or_percent;
pub mod name_hash;
pub mod owners;
pub mod pod_state;
pub mod replication_controller;
pub mod taints;
pub mod volume_references;
