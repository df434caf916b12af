//! What a pod and the volume of its claim name: the agent of its node may read this and nothing else.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, PersistentVolume, Pod, PodSpec, Volume};

use super::authorize::Related;

/// Whether the pod names the object `name` of this kind in its own namespace.
pub fn references(pod: &Pod, kind: Related, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    match kind {
        Related::ServiceAccount => spec.service_account_name.as_deref() == Some(name),
        Related::Claim => claims(pod).any(|claim| claim == name),
        Related::ResourceClaim => resource_claims(pod).any(|claim| claim == name),
        Related::Secret | Related::ConfigMap => spec_references(spec, kind, name),
        Related::Pod | Related::Volume | Related::VolumeAttachment | Related::ResourceSlice => false,
    }
}

/// The PersistentVolumeClaims of a pod, those that are made for it included.
pub fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    let own = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(move |volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{own}-{}", volume.name)),
        (None, None) => None,
    })
}

/// The ResourceClaims of a pod; those that are made for it stand in its status.
fn resource_claims(pod: &Pod) -> impl Iterator<Item = &str> {
    let named = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let named = named.filter_map(|claim| claim.resource_claim_name.as_deref());
    let status = pod.status.as_ref();
    let made = status.into_iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    let made = made.filter_map(|claim| claim.resource_claim_name.as_deref());
    let extended = status.and_then(|status| status.extended_resource_claim_status.as_ref());
    named.chain(made).chain(extended.map(|claim| claim.resource_claim_name.as_str()))
}

/// Namespaces and names of the Secrets that a node needs for a volume. As Kubernetes' `VisitPVSecretNames`, where these
/// are visible to the kubelet.
pub fn volume_secrets<'v>(volume: &'v PersistentVolume) -> Vec<(&'v str, &'v str)> {
    let Some(spec) = &volume.spec else { return Vec::new() };
    let of_claim = spec.claim_ref.as_ref().and_then(|claim| claim.namespace.as_deref()).unwrap_or_default();
    let csi = spec.csi.as_ref();
    let references = [
        spec.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.cinder.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.scale_io.as_ref().map(|source| &source.secret_ref),
        csi.and_then(|source| source.node_publish_secret_ref.as_ref()),
        csi.and_then(|source| source.node_stage_secret_ref.as_ref()),
        csi.and_then(|source| source.node_expand_secret_ref.as_ref()),
    ];
    let of = |namespace: Option<&'v str>| namespace.filter(|namespace| !namespace.is_empty()).unwrap_or(of_claim);
    let named = references.into_iter().flatten();
    let named = named.map(|secret| (of(secret.namespace.as_deref()), secret.name.as_deref().unwrap_or_default()));
    let storage = spec.storageos.as_ref().and_then(|source| source.secret_ref.as_ref());
    let storage = storage.map(|secret| (of(secret.namespace.as_deref()), secret.name.as_deref().unwrap_or_default()));
    let file = spec.azure_file.as_ref();
    let file = file.map(|source| (of(source.secret_namespace.as_deref()), source.secret_name.as_str()));
    named.chain(storage).chain(file).filter(|(_, name)| !name.is_empty()).collect()
}

/// Sees every place that Kubernetes' `VisitPodSecretNames` and `VisitPodConfigmapNames` see.
fn spec_references(pod: &PodSpec, kind: Related, name: &str) -> bool {
    let is = |candidate: Option<&str>| candidate == Some(name);
    let secret = kind == Related::Secret;
    let in_env = |env: &EnvVar| {
        let Some(from) = &env.value_from else { return false };
        if secret {
            is(from.secret_key_ref.as_ref().map(|r| r.name.as_str()))
        } else {
            is(from.config_map_key_ref.as_ref().map(|r| r.name.as_str()))
        }
    };
    let in_env_from = |from: &EnvFromSource| {
        if secret {
            is(from.secret_ref.as_ref().map(|r| r.name.as_str()))
        } else {
            is(from.config_map_ref.as_ref().map(|r| r.name.as_str()))
        }
    };
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    let ephemeral = pod.ephemeral_containers.iter().flatten();
    let mut environments = containers.map(|c| (&c.env, &c.env_from)).chain(ephemeral.map(|c| (&c.env, &c.env_from)));
    environments.any(|(env, from)| env.iter().flatten().any(in_env) || from.iter().flatten().any(in_env_from))
        || pod.volumes.iter().flatten().any(|volume| in_volume(volume, kind, name))
        || secret && pod.image_pull_secrets.iter().flatten().any(|s| s.name == name)
}

fn in_volume(volume: &Volume, kind: Related, name: &str) -> bool {
    let is = |candidate: Option<&str>| candidate == Some(name);
    let projected = || volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    if kind == Related::ConfigMap {
        return is(volume.config_map.as_ref().map(|c| c.name.as_str()))
            || projected().any(|source| is(source.config_map.as_ref().map(|c| c.name.as_str())));
    }
    let local = [
        volume.cephfs.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.csi.as_ref().and_then(|v| v.node_publish_secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.iscsi.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|v| &v.secret_ref),
        volume.storageos.as_ref().and_then(|v| v.secret_ref.as_ref()),
    ];
    is(volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()))
        || is(volume.azure_file.as_ref().map(|v| v.secret_name.as_str()))
        || projected().any(|source| is(source.secret.as_ref().map(|s| s.name.as_str())))
        || local.into_iter().flatten().any(|reference| reference.name == name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_place_where_a_pod_can_name_a_secret_is_seen() {
        let spec = |v: Value| serde_json::from_value(json!({"metadata": {}, "spec": v})).unwrap();
        let container = |v: Value| spec(json!({"containers": [v]}));
        for pod in [
            container(
                json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            ),
            container(json!({"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]})),
            spec(
                json!({"containers": [], "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s"}}]}]}),
            ),
            spec(json!({"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "s"}}]})),
            spec(
                json!({"containers": [], "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]}),
            ),
            spec(json!({"containers": [], "imagePullSecrets": [{"name": "s"}]})),
            spec(
                json!({"containers": [], "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "s"}}]}]}),
            ),
            spec(json!({"containers": [], "volumes": [{"name": "v",
                "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}]})),
            spec(
                json!({"containers": [], "volumes": [{"name": "v", "azureFile": {"secretName": "s", "shareName": "x"}}]}),
            ),
        ] {
            assert!(references(&pod, Related::Secret, "s"), "{pod:?}");
            assert!(!references(&pod, Related::Secret, "t"));
            assert!(!references(&pod, Related::ConfigMap, "s"));
        }
        let config = container(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}]}));
        assert!(references(&config, Related::ConfigMap, "m"));
        let projected = spec(
            json!({"containers": [], "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "m"}}]}}]}),
        );
        assert!(references(&projected, Related::ConfigMap, "m"));
    }
}
