//! The finalizers of storage objects that are in use: admission gives them to new objects, and controllers take them
//! away when an object is being deleted and nothing uses it.

/// Of PersistentVolumeClaims.
pub const CLAIM: &str = "kubernetes.io/pvc-protection";
/// Of PersistentVolumes.
pub const VOLUME: &str = "kubernetes.io/pv-protection";
/// Of VolumeAttributesClasses.
pub const ATTRIBUTES_CLASS: &str = "kubernetes.io/vac-protection";
