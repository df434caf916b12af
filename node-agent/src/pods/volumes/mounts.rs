//! Which paths of the node a container sees, and where. A `subPath` is bound to a place of its own for that.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::{Kind, kind, sub_path, volumes_dir};
use crate::{
    pods::{expand::expand, outcome::Failure},
    runtime::{Mount, Propagation},
};

/// The mounts of `container`; `env` is what `subPathExpr` is expanded from.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    pod_dir: &Path,
    env: &[(String, String)],
) -> Result<Vec<Mount>, Failure> {
    let variables: BTreeMap<&str, &str> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let wanted = container.volume_mounts.iter().flatten().enumerate();
    let mounts = wanted.map(|(index, wanted)| {
        let sub_path_target = sub_path_target(pod_dir, &wanted.name, &container.name, index);
        mount(pod, wanted, pod_dir, &sub_path_target, &variables)
    });
    mounts.collect()
}

/// Where a `subPath` is bound for one mount of a container. Unmounted with all else of the pod.
fn sub_path_target(pod_dir: &Path, volume: &str, container: &str, index: usize) -> PathBuf {
    pod_dir.join("volume-subpaths").join(volume).join(container).join(index.to_string())
}

fn mount(
    pod: &Pod,
    wanted: &VolumeMount,
    pod_dir: &Path,
    sub_path_target: &Path,
    variables: &BTreeMap<&str, &str>,
) -> Result<Mount, Failure> {
    let failed = |message: String| Failure::new("CreateContainerConfigError", message);
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let volume = volumes.into_iter().find(|volume| volume.name == wanted.name);
    let volume =
        volume.ok_or_else(|| failed(format!("no volume {:?} for the mount at {}", wanted.name, wanted.mount_path)))?;
    let (root, made_here) = match kind(volume)? {
        Kind::HostPath { path, .. } => (Path::new(path).to_owned(), false),
        Kind::EmptyDir { .. } => (volumes_dir(pod_dir).join(&volume.name), false),
        Kind::Files { .. } => (volumes_dir(pod_dir).join(&volume.name), true),
    };
    let expression = wanted.sub_path_expr.as_deref().filter(|path| !path.is_empty());
    let expression = expression.map(|path| {
        let expanded = expand(path, |name| variables.get(name).copied());
        expanded.map_err(|error| failed(format!("the subPathExpr of volumeMount {:?} is {error}", wanted.name)))
    });
    let sub = expression.transpose()?.or_else(|| wanted.sub_path.clone()).filter(|path| !path.is_empty());
    let propagation = match wanted.mount_propagation.as_deref() {
        Some("Bidirectional") => Propagation::Bidirectional,
        Some("HostToContainer") => Propagation::HostToContainer,
        _ => Propagation::Private,
    };
    let source = match sub {
        Some(sub) => {
            let bound = sub_path::bind(&root, &sub, sub_path_target, propagation);
            bound.map_err(|error| {
                failed(format!("failed to prepare subPath for volumeMount {:?}: {error}", wanted.name))
            })?;
            sub_path_target.to_owned()
        }
        None => root,
    };
    Ok(Mount {
        source,
        target: if wanted.mount_path.starts_with('/') {
            wanted.mount_path.clone()
        } else {
            format!("/{}", wanted.mount_path)
        },
        // What is made from objects is theirs to change.
        read_only: made_here || wanted.read_only.unwrap_or_default(),
        propagation,
    })
}
