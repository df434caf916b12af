//! Kinds of `storage.k8s.io`: how volumes are made, attached and found. Nothing here makes a volume.

pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
mod parameters;
pub mod storage_class;
pub mod volume_attachment;
pub mod volume_attributes_class;

/// The name of the API group.
const GROUP: &str = "storage.k8s.io";
