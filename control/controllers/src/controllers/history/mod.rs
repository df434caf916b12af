//! Revision history of DaemonSets and StatefulSets: one ControllerRevision for each template that an owner had.
//!
//! - *data*: what a revision holds, the template as a patch that `kubectl rollout undo` sends;
//! - *current*: the newest revision with the owner's present template;
//! - *old*: all others, of which some stay for a rollback.
//!
//! [`plan`] decides what the history lacks; [`requests`] sends it. Which revisions the owner's pods run is not known
//! here. Source: `pkg/controller/history` of Kubernetes.

mod requests;

use std::{collections::BTreeMap, sync::Arc};

use fairlead_client::{Object, from_value, to_value};
use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::runtime::RawExtension,
};
use serde_json::json;

pub use self::requests::History;
use super::pod_owners::{SelectingOwner, enqueue_owner};
use crate::{
    engine::{Informer, Key, ObjectChange, WorkQueue},
    objects::{name_hash::name_hash, owners::controller_of},
};

/// Label of pods that names the revision they run.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// A kind whose templates are kept as revisions.
pub trait HistoryOwner: Object {
    /// Label of its revisions that holds their hash.
    const REVISION_LABEL: &'static str;

    /// How many names of revisions were found taken.
    fn collision_count(&self) -> i32;
}

/// What the history of one owner lacks.
#[derive(Debug)]
pub struct HistoryPlan {
    /// The revision of the present template.
    pub current: Current,
    /// Older revisions of the present template.
    pub duplicates: Vec<Arc<ControllerRevision>>,
    /// Revisions of other templates, oldest first.
    pub old: Vec<Arc<ControllerRevision>>,
}

/// The revision of the present template.
#[derive(Debug)]
pub enum Current {
    /// It is the newest.
    Newest(Arc<ControllerRevision>),
    /// The owner was rolled back to it: it gets this number.
    Renumber(Arc<ControllerRevision>, i64),
    /// There is none: one with this number is to be made.
    Missing(i64),
}

/// Decides for an owner whose present template is `template`.
pub fn plan(template: &PodTemplateSpec, revisions: &[Arc<ControllerRevision>]) -> HistoryPlan {
    let mut sorted = revisions.to_vec();
    sort(&mut sorted);
    let (mut same, old): (Vec<_>, Vec<_>) =
        sorted.into_iter().partition(|revision| template_of(revision).as_ref() == Some(template));
    let next = old.iter().map(|revision| revision.revision).max().unwrap_or(0).saturating_add(1);
    let current = match same.pop() {
        Some(newest) if newest.revision >= next => Current::Newest(newest),
        Some(older) => Current::Renumber(older, next),
        None => Current::Missing(next),
    };
    HistoryPlan { current, duplicates: same, old }
}

/// Enqueues the owner of a revision that changed, or those that may adopt it.
///
/// Not for a new one that has an owner: it was made by a pass of that owner, or by somebody with its name, and the next
/// change of the owner reads it.
pub fn revision_changed<O: SelectingOwner>(
    owners: &Informer<O>,
    kind: &str,
    change: &ObjectChange<ControllerRevision>,
    queue: &WorkQueue<Key>,
) {
    if change.old.is_none() && controller_of(&change.latest().metadata).is_some() {
        return;
    }
    for version in [&change.old, &change.new].into_iter().flatten() {
        enqueue_owner(owners, kind, &version.metadata, queue);
    }
}

/// The first `count` of `old` revisions that are not `live`.
pub fn oldest(
    old: &[Arc<ControllerRevision>],
    count: usize,
    live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<Arc<ControllerRevision>> {
    old.iter().filter(|revision| !live(revision)).take(count).cloned().collect()
}

/// Oldest first.
pub fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by_cached_key(|revision| {
        let created = revision.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (revision.revision, created, revision.metadata.name.clone())
    });
}

/// The template that the revision holds; `None` where it holds none.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.shift_remove("$patch");
    from_value(&template).ok()
}

/// A revision to be made.
struct NewRevision<'a> {
    /// The owner's present template.
    template: &'a PodTemplateSpec,
    /// Those of the owner.
    annotations: Option<&'a BTreeMap<String, String>>,
    /// Label that holds the hash.
    label: &'static str,
    /// Its place in the history.
    number: i64,
}

impl NewRevision<'_> {
    /// The revision, named after `owner` and a hash that differs with each collision.
    fn named(&self, owner: &str, collisions: i32) -> ControllerRevision {
        // A typed template always serialises: its maps are keyed by strings.
        let mut template = to_value(self.template).unwrap_or_else(|_| json!({}));
        let hash = name_hash(template.to_string().into_bytes(), collisions);
        template["$patch"] = "replace".into();
        let mut data = json!({"spec": {"template": template}});
        // As Go writes maps. Who asks whether a revision is that of a template compares bytes.
        data.sort_all_objects();
        let mut revision =
            ControllerRevision { data: Some(RawExtension(data)), revision: self.number, metadata: Default::default() };
        revision.metadata.name = Some(format!("{}-{hash}", prefix(owner)));
        let labels = self.template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        let mut labels = labels.unwrap_or_default();
        labels.insert(self.label.to_owned(), hash);
        revision.metadata.labels = Some(labels);
        revision.metadata.annotations = self.annotations.cloned();
        revision
    }
}

/// Names of revisions end in a hash, and stay within 253 characters. Source: `ControllerRevisionName`.
fn prefix(owner: &str) -> &str {
    owner.get(..223).unwrap_or(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image}]}}))
        .expect("a valid template")
    }

    fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
        let template = template(image);
        let new = NewRevision { template: &template, annotations: None, label: HASH_LABEL, number };
        Arc::new(new.named("web", 0))
    }

    fn names(revisions: &[Arc<ControllerRevision>]) -> Vec<i64> {
        revisions.iter().map(|revision| revision.revision).collect()
    }

    #[test]
    fn a_new_template_comes_after_the_newest_revision() {
        let plan = plan(&template("c"), &[revision("b", 7), revision("a", 2)]);
        assert!(matches!(plan.current, Current::Missing(8)), "{:?}", plan.current);
        assert_eq!(names(&plan.old), [2, 7]);
        assert!(matches!(super::plan(&template("a"), &[]).current, Current::Missing(1)));
    }

    #[test]
    fn a_rollback_renumbers_the_old_revision_and_the_newest_stays() {
        let revisions = [revision("a", 1), revision("b", 2)];
        let back = plan(&template("a"), &revisions);
        assert!(matches!(&back.current, Current::Renumber(found, 3) if found.revision == 1), "{:?}", back.current);
        let same = plan(&template("b"), &revisions);
        assert!(matches!(&same.current, Current::Newest(found) if found.revision == 2), "{:?}", same.current);
        // Equal numbers: whoever wrote the other meant it to be as new.
        let tie = plan(&template("a"), &[revision("a", 2), revision("b", 2)]);
        assert!(matches!(tie.current, Current::Renumber(_, 3)), "{:?}", tie.current);
    }

    #[test]
    fn of_equal_revisions_the_newest_stays() {
        let plan = plan(&template("a"), &[revision("a", 3), revision("b", 2), revision("a", 1)]);
        assert!(matches!(&plan.current, Current::Newest(found) if found.revision == 3));
        assert_eq!((names(&plan.duplicates), names(&plan.old)), (vec![1], vec![2]));
    }

    #[test]
    fn the_oldest_that_no_pod_runs_go_first() {
        let old = [revision("a", 1), revision("b", 2), revision("c", 3), revision("d", 4)];
        let live = |revision: &ControllerRevision| revision.revision == 2;
        assert_eq!(names(&oldest(&old, 2, live)), [1, 3]);
        assert_eq!(names(&oldest(&old, 0, live)), [0; 0]);
    }

    #[test]
    fn a_revision_holds_its_template_as_a_patch_and_its_name_differs_with_collisions() {
        let made = revision("a", 1);
        let data = made.data.as_ref().expect("data").0.to_string();
        let expected = r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"image":"a","name":"c"}]}}}}"#;
        assert_eq!(data, expected, "as Go's getPatch makes it");
        assert_eq!(template_of(&made), Some(template("a")));
        let hash = &made.metadata.labels.as_ref().expect("labels")[HASH_LABEL];
        assert_eq!(made.metadata.name, Some(format!("web-{hash}")));
        let template = template("a");
        let new = NewRevision { template: &template, annotations: None, label: HASH_LABEL, number: 1 };
        assert_ne!(new.named("web", 1).metadata.name, made.metadata.name);
        let long = "a".repeat(250);
        assert!(new.named(&long, 0).metadata.name.is_some_and(|name| name.len() <= 253));
        assert_eq!(template_of(&ControllerRevision::default()), None);
    }
}
