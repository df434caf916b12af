//! The pod that a template makes, before its controller adds what is its own. Source: `GetPodFromTemplate`.

use k8s_openapi::{
    api::core::v1::{Pod, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

/// The pod of `template` beside `maker`, the object that has the template: in its namespace, with `owner` as its
/// controller. Its name begins as that of the maker, and the server ends it.
pub fn pod(template: PodTemplateSpec, maker: &ObjectMeta, owner: OwnerReference) -> Pod {
    let meta = template.metadata.unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", maker.name.as_deref().unwrap_or_default())),
        namespace: maker.namespace.clone(),
        labels: meta.labels,
        annotations: meta.annotations,
        finalizers: meta.finalizers,
        owner_references: Some(vec![owner]),
        ..Default::default()
    };
    Pod { metadata, spec: template.spec, status: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_has_what_its_template_says_and_nothing_else_of_the_template() {
        let template = json!({"metadata": {"name": "ignored", "labels": {"a": "b"}, "annotations": {"c": "d"},
            "finalizers": ["e/f"]}, "spec": {"containers": [{"name": "c"}]}});
        let maker = json!({"name": "web", "namespace": "shop", "labels": {"of": "maker"}});
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1"});
        let pod = pod(
            serde_json::from_value(template).expect("a valid template"),
            &serde_json::from_value(maker).expect("valid metadata"),
            serde_json::from_value(owner.clone()).expect("a valid reference"),
        );
        let expected = json!({"generateName": "web-", "namespace": "shop", "labels": {"a": "b"},
            "annotations": {"c": "d"}, "finalizers": ["e/f"], "ownerReferences": [owner]});
        assert_eq!(serde_json::to_value(&pod.metadata).expect("metadata"), expected);
        assert_eq!(pod.spec.map(|spec| spec.containers.len()), Some(1));
    }
}
