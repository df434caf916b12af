//! Revisions of a Deployment: which set is the new one, what its annotations hold, and which old ones are deleted.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    limits::{Limits, asked},
    rolling::by_age,
    template::{HASH_LABEL, hash, runs},
};
use crate::objects::owners::controller_reference;

/// Annotation with the number of a revision.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation with the Deployment's replicas when the set was sized.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation with the most pods there might be when the set was sized.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its sets do not take over.
const OWN: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

type Annotations = BTreeMap<String, String>;

/// The Deployment's pod template.
pub fn template(deployment: &Deployment) -> PodTemplateSpec {
    deployment.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default()
}

/// The set that runs the Deployment's template (the oldest, if several do), and all others.
pub fn split(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> (Option<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
    let template = template(deployment);
    let mut ordered = sets.to_vec();
    ordered.sort_by(|a, b| by_age(a, b));
    let new = ordered.iter().position(|set| runs(set, &template)).map(|at| ordered.remove(at));
    (new, ordered)
}

/// The set's revision; 0 where it has none.
pub fn revision_of(set: &ReplicaSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(REVISION)).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// Number of the newest revision, whose older ones are `old`.
pub fn next_revision(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|set| revision_of(set)).max().unwrap_or(0).saturating_add(1)
}

/// The set for the Deployment's template, at `replicas`.
pub fn new_set(deployment: &Deployment, limits: Limits, revision: i64, replicas: i32) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
    let mut template = spec.template;
    let hash = hash(&template, collisions);
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let mut annotations = taken_over(deployment);
    annotations.insert(REVISION.into(), revision.to_string());
    annotations.extend(size_annotations(limits));
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
        namespace: deployment.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference(deployment)]),
        ..Default::default()
    };
    let spec = ReplicaSetSpec {
        replicas: Some(replicas),
        min_ready_seconds: spec.min_ready_seconds,
        selector,
        template: Some(template),
    };
    ReplicaSet { metadata, spec: Some(spec), status: None }
}

/// Annotations that keep the size, for a later scaling in proportion.
pub fn size_annotations(limits: Limits) -> Annotations {
    [(DESIRED_REPLICAS, limits.replicas), (MAX_REPLICAS, limits.most())]
        .map(|(key, value)| (key.to_owned(), value.to_string()))
        .into()
}

/// Annotations of the new set that differ from what they should be.
pub fn annotation_changes(deployment: &Deployment, set: &ReplicaSet, revision: i64) -> Annotations {
    let standing = set.metadata.annotations.clone().unwrap_or_default();
    let mut wanted = taken_over(deployment);
    let before = revision_of(set);
    if before < revision {
        wanted.insert(REVISION.into(), revision.to_string());
        if before > 0 {
            let history = standing.get(REVISION_HISTORY).filter(|h| !h.is_empty());
            let history = history.map_or(before.to_string(), |history| format!("{history},{before}"));
            wanted.insert(REVISION_HISTORY.into(), history);
        }
    }
    wanted.retain(|key, value| standing.get(key) != Some(value));
    wanted
}

fn taken_over(deployment: &Deployment) -> Annotations {
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN.contains(&key.as_str()));
    annotations
}

/// Old sets beyond the history limit, oldest revision first, that hold no pods.
pub fn beyond_history(deployment: &Deployment, old: &[Arc<ReplicaSet>]) -> Vec<Arc<ReplicaSet>> {
    let limit = deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
    let mut alive: Vec<_> = old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).cloned().collect();
    let excess = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    alive.sort_by_key(|set| revision_of(set));
    alive.into_iter().take(excess).filter(|set| is_idle(set)).collect()
}

fn is_idle(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    asked(set) == 0 && status.replicas == 0 && set.metadata.generation <= status.observed_generation
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(annotations: Value, history: i32) -> Deployment {
        serde_json::from_value(json!({"metadata": {"name": "web", "uid": "d", "annotations": annotations},
            "spec": {"replicas": 3, "revisionHistoryLimit": history, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}}}))
        .expect("a valid deployment")
    }

    fn set(revision: i64, asked: i32) -> Arc<ReplicaSet> {
        let annotations = json!({REVISION: revision.to_string()});
        let set = json!({"metadata": {"name": format!("web-{revision}"), "annotations": annotations},
            "spec": {"replicas": asked, "selector": {}}, "status": {"replicas": asked}});
        Arc::new(serde_json::from_value(set).expect("a valid set"))
    }

    #[test]
    fn the_new_set_selects_by_hash_and_is_found_again_by_its_template() {
        let deployment = deployment(json!({"kubernetes.io/change-cause": "first", REVISION: "7"}), 10);
        let limits = Limits { replicas: 3, surge: 1, unavailable: 0 };
        let new = new_set(&deployment, limits, 8, 2);
        let annotations = new.metadata.annotations.clone().unwrap_or_default();
        assert_eq!(annotations.get(REVISION).map(String::as_str), Some("8"));
        assert_eq!(annotations.get("kubernetes.io/change-cause").map(String::as_str), Some("first"));
        assert_eq!(annotations.get(MAX_REPLICAS).map(String::as_str), Some("4"));
        let new = Arc::new(new);
        let (found, old) = split(&deployment, &[set(1, 0), new.clone()]);
        assert_eq!(found.map(|s| s.metadata.name.clone()), Some(new.metadata.name.clone()));
        assert_eq!(old.len(), 1);
    }

    #[test]
    fn an_old_set_that_becomes_new_again_keeps_its_former_revisions() {
        let mut again = (*set(2, 0)).clone();
        again.metadata.annotations.get_or_insert_default().insert(REVISION_HISTORY.into(), "1".into());
        let changes = annotation_changes(&deployment(json!({}), 10), &again, 5);
        assert_eq!(changes.get(REVISION).map(String::as_str), Some("5"));
        assert_eq!(changes.get(REVISION_HISTORY).map(String::as_str), Some("1,2"));
        assert!(annotation_changes(&deployment(json!({}), 10), &again, 2).is_empty());
    }

    #[test]
    fn the_oldest_empty_sets_beyond_the_limit_are_beyond_history() {
        let old = [set(3, 0), set(1, 0), set(2, 1), set(4, 0)];
        let names = |limit| -> Vec<i64> {
            beyond_history(&deployment(json!({}), limit), &old).iter().map(|set| revision_of(set)).collect()
        };
        assert_eq!(names(2), [1]);
        assert_eq!(names(0), [1, 3, 4]);
        assert!(names(4).is_empty());
    }
}
