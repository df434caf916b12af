//! The revisions of a Deployment: its ReplicaSets by their revision annotation.

use serde_json::Value;

use super::Deployment;
use crate::{
    cluster::{Cluster, resource_path, with_query},
    verbs::logs::label_selector,
};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// One revision and the ReplicaSet that has its template.
pub struct Revision {
    /// Of the annotation `deployment.kubernetes.io/revision`.
    pub number: u64,
    /// Of the annotation `kubernetes.io/change-cause`; empty where there is none.
    pub change_cause: String,
    /// The pod template, without the hash that the controller has put in.
    pub template: Value,
}

/// All revisions, oldest first.
pub async fn revisions(cluster: &Cluster, deployment: &Deployment) -> anyhow::Result<Vec<Revision>> {
    let kind = cluster.resources().await?.resolve("replicasets.apps")?;
    let selector = label_selector(&deployment.object["spec"]["selector"]).unwrap_or_default();
    let list = with_query(&resource_path(kind, Some(cluster.namespace())), &[("labelSelector", &selector)]);
    let sets = cluster.get(&list).await?;
    Ok(of(&deployment.object, sets["items"].as_array().map(Vec::as_slice).unwrap_or_default()))
}

fn of(deployment: &Value, sets: &[Value]) -> Vec<Revision> {
    let uid = &deployment["metadata"]["uid"];
    let owned = |set: &&Value| {
        let owners = set["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.into_iter().any(|owner| owner["controller"] == true && owner["uid"] == *uid)
    };
    let mut found: Vec<Revision> = sets
        .iter()
        .filter(owned)
        .filter_map(|set| {
            let annotations = &set["metadata"]["annotations"];
            let mut template = set["spec"]["template"].clone();
            if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
                labels.shift_remove("pod-template-hash");
            }
            Some(Revision {
                number: annotations[REVISION].as_str()?.parse().ok()?,
                change_cause: annotations[CHANGE_CAUSE].as_str().unwrap_or("<none>").to_owned(),
                template,
            })
        })
        .collect();
    found.sort_by_key(|revision| revision.number);
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn revisions_are_the_owned_sets_in_order() {
        let set = |revision: &str, owner: &str| {
            json!({"metadata": {"annotations": {REVISION: revision}, "ownerReferences": [{"uid": owner, "controller": true}]},
                "spec": {"template": {"metadata": {"labels": {"app": "web", "pod-template-hash": "x"}}}}})
        };
        let found = of(&json!({"metadata": {"uid": "u"}}), &[set("10", "u"), set("2", "u"), set("3", "other")]);
        assert_eq!(found.iter().map(|r| r.number).collect::<Vec<_>>(), [2, 10]);
        assert_eq!(found[0].template["metadata"]["labels"], json!({"app": "web"}));
    }
}
