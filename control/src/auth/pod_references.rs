//! Which Secrets and ConfigMaps a pod names: the agent of its node may read these and no others.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, PodSpec, Volume};

use super::authorize::Referenced;

/// Whether the pod names the object `name` of this kind in its own namespace. Sees every place that Kubernetes'
/// `VisitPodSecretNames` and `VisitPodConfigmapNames` see.
pub fn references(pod: &PodSpec, kind: Referenced, name: &str) -> bool {
    let is = |candidate: Option<&str>| candidate == Some(name);
    if kind == Referenced::ServiceAccount {
        return is(pod.service_account_name.as_deref());
    }
    let secret = kind == Referenced::Secret;
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

fn in_volume(volume: &Volume, kind: Referenced, name: &str) -> bool {
    let is = |candidate: Option<&str>| candidate == Some(name);
    let projected = || volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    if kind == Referenced::ConfigMap {
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
        let spec = |v: Value| serde_json::from_value(v).unwrap();
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
            assert!(references(&pod, Referenced::Secret, "s"), "{pod:?}");
            assert!(!references(&pod, Referenced::Secret, "t"));
            assert!(!references(&pod, Referenced::ConfigMap, "s"));
        }
        let config = container(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}]}));
        assert!(references(&config, Referenced::ConfigMap, "m"));
        let projected = spec(
            json!({"containers": [], "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "m"}}]}}]}),
        );
        assert!(references(&projected, Referenced::ConfigMap, "m"));
    }
}
