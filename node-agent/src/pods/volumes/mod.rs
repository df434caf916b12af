//! The volumes of a pod: directories of the node that its containers see. Says which kind each is; the kinds are in
//! files of their own.

mod atomic;
mod beneath;
mod empty_dir;
mod files;
mod fs_group;
mod host_path;
mod mounts;
mod sub_path;
mod usage;

use std::path::{Path, PathBuf};

pub use atomic::write as write_atomically;
pub use empty_dir::{mount_memory, unmount_all};
pub use files::{Projection, contents, projections, references};
pub use fs_group::{GroupAccess, set_group};
pub use host_path::check as check_host_path;
use k8s_openapi::api::core::v1::{Pod, Volume};
pub use mounts::mounts;
pub use usage::{Incomplete, Usage, used_bytes};

use super::{objects::ObjectKey, outcome::Failure, quantity};

/// Where volumes are kept among a pod's files.
pub fn volumes_dir(pod_dir: &Path) -> PathBuf {
    pod_dir.join("volumes")
}

/// What a volume is made of.
pub enum Kind<'a> {
    /// A directory that lives as long as the pod.
    EmptyDir {
        /// In memory, not on disk.
        in_memory: bool,
        /// Bytes that may be in it: the size of a file system in memory, watched over on disk.
        limit: Option<i64>,
    },
    /// A file or directory of the host.
    HostPath { path: &'a str, kind: &'a str },
    /// Files made from objects: ConfigMap, Secret, downwardAPI, tokens, projected.
    Files {
        projections: Vec<Projection<'a>>,
        default_mode: u32,
        /// In memory, since it holds what no disk should.
        secret: bool,
    },
}

/// Which kind `volume` is; a failure for one that this agent does not serve.
pub fn kind(volume: &Volume) -> Result<Kind<'_>, Failure> {
    if let Some(source) = &volume.empty_dir {
        let limit = source
            .size_limit
            .as_ref()
            .and_then(|limit| quantity::in_unit_of("memory", limit))
            .filter(|limit| *limit > 0);
        return Ok(Kind::EmptyDir { in_memory: source.medium.as_deref() == Some("Memory"), limit });
    }
    if let Some(source) = &volume.host_path {
        return Ok(Kind::HostPath { path: &source.path, kind: source.type_.as_deref().unwrap_or_default() });
    }
    if let Some((projections, default_mode)) = projections(volume) {
        let secret = projections.iter().any(Projection::is_secret);
        return Ok(Kind::Files { projections, default_mode, secret });
    }
    Err(Failure::new(
        "FailedMount",
        format!("MountVolume.SetUp failed for volume {:?}: this node serves no volumes of its kind", volume.name),
    ))
}

/// The objects that the pod's volumes are made of.
pub fn referenced(pod: &Pod) -> Vec<ObjectKey> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut keys: Vec<_> = volumes
        .filter_map(|volume| match kind(volume) {
            Ok(Kind::Files { projections, .. }) => Some(references(pod, &projections)),
            _ => None,
        })
        .flatten()
        .collect();
    keys.sort();
    keys.dedup();
    keys
}
