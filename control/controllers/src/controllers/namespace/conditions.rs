//! What a terminating namespace still holds, as the conditions of its status.
//!
//! Source: `pkg/controller/namespace/deletion/status_condition_utils.go`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{NamespaceCondition, NamespaceStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

/// What a pass over a namespace found.
#[derive(Debug, Default)]
pub struct Remaining {
    /// Objects left, by the name of their resource.
    pub objects: BTreeMap<String, usize>,
    /// Objects left that have a finalizer, by the finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// Why objects could not be deleted.
    pub failures: Vec<String>,
    /// Versions of groups whose server could not be asked what it serves.
    pub undiscovered: Vec<String>,
}

impl Remaining {
    /// Whether nothing is left, as far as could be seen.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.failures.is_empty() && self.undiscovered.is_empty()
    }

    /// Brings the conditions up to date. Answers whether any changed.
    pub fn tell(&self, status: &mut NamespaceStatus, now: Timestamp) -> bool {
        let conditions = status.conditions.get_or_insert_default();
        let mut changed = false;
        for (r#type, found, [ok_reason, ok_message]) in self.findings() {
            let (status, reason, message) = match found {
                Some((reason, message)) => ("True", reason, message),
                None => ("False", ok_reason, ok_message.to_owned()),
            };
            let wanted = NamespaceCondition {
                type_: r#type.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_transition_time: Some(Time(now)),
            };
            changed |= replace(conditions, wanted);
        }
        changed
    }

    /// Of each type of condition: reason and message if it is true, and those if it is not.
    fn findings(&self) -> [Finding; 5] {
        let counted = |counts: &BTreeMap<String, usize>, word: &str| -> String {
            let parts: Vec<String> =
                counts.iter().map(|(name, count)| format!("{name} {word} {count} resource instances")).collect();
            parts.join(", ")
        };
        let failed = (!self.failures.is_empty()).then(|| {
            let (count, texts) = (self.failures.len(), self.failures.join(", "));
            ("ContentDeletionFailed", format!("Failed to delete all resource types, {count} remaining: {texts}"))
        });
        let undiscovered = (!self.undiscovered.is_empty()).then(|| {
            let stale = |version: &String| format!("{version}: stale GroupVersion discovery: {version}");
            let (count, texts) = (self.undiscovered.len(), self.undiscovered.iter().map(stale).collect::<Vec<_>>());
            let all = format!("unable to retrieve the complete list of server APIs: {}", texts.join(", "));
            ("DiscoveryFailed", format!("Discovery failed for some groups, {count} failing: {all}"))
        });
        let content = (!self.objects.is_empty()).then(|| {
            ("SomeResourcesRemain", format!("Some resources are remaining: {}", counted(&self.objects, "has")))
        });
        let finalizers = (!self.finalizers.is_empty()).then(|| {
            let counted = counted(&self.finalizers, "in");
            ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {counted}"))
        });
        [
            (
                "NamespaceDeletionDiscoveryFailure",
                undiscovered,
                ["ResourcesDiscovered", "All resources successfully discovered"],
            ),
            // What discovery says can always be read.
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                None,
                ["ParsedGroupVersions", "All legacy kube types successfully parsed"],
            ),
            (
                "NamespaceDeletionContentFailure",
                failed,
                ["ContentDeleted", "All content successfully deleted, may be waiting on finalization"],
            ),
            ("NamespaceContentRemaining", content, ["ContentRemoved", "All content successfully removed"]),
            (
                "NamespaceFinalizersRemaining",
                finalizers,
                ["ContentHasNoFinalizers", "All content-preserving finalizers finished"],
            ),
        ]
    }
}

/// The type of a condition, what was found (reason and message), and what is said where nothing was.
type Finding = (&'static str, Option<(&'static str, String)>, [&'static str; 2]);

/// Answers whether anything but the time changed; the time changes with the status only.
fn replace(conditions: &mut Vec<NamespaceCondition>, mut wanted: NamespaceCondition) -> bool {
    let Some(standing) = conditions.iter_mut().find(|standing| standing.type_ == wanted.type_) else {
        conditions.push(wanted);
        return true;
    };
    if standing.status == wanted.status {
        wanted.last_transition_time = standing.last_transition_time.clone();
    }
    if *standing == wanted {
        return false;
    }
    *standing = wanted;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'s>(status: &'s NamespaceStatus, r#type: &str) -> (&'s str, &'s str) {
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == r#type);
        let condition = condition.expect("every condition is told");
        (&condition.status, condition.message.as_deref().unwrap_or_default())
    }

    #[test]
    fn the_conditions_name_all_that_is_left_and_why() {
        let mut status = NamespaceStatus::default();
        let mut remaining = Remaining::default();
        remaining.objects.extend([("pods".to_owned(), 2), ("leases.coordination.k8s.io".to_owned(), 1)]);
        remaining.finalizers.insert("example.com/keep".into(), 2);
        remaining.failures.push("cannot list".into());
        assert!(remaining.tell(&mut status, Timestamp::MIN));
        assert!(!remaining.tell(&mut status, Timestamp::MAX), "nothing changed but the time");
        assert_eq!(
            message(&status, "NamespaceContentRemaining"),
            (
                "True",
                "Some resources are remaining: leases.coordination.k8s.io has 1 resource instances, pods has 2 \
                 resource instances"
            )
        );
        assert_eq!(
            message(&status, "NamespaceFinalizersRemaining"),
            (
                "True",
                "Some content in the namespace has finalizers remaining: example.com/keep in 2 resource instances"
            )
        );
        let failure = ("True", "Failed to delete all resource types, 1 remaining: cannot list");
        assert_eq!(message(&status, "NamespaceDeletionContentFailure"), failure);
        assert_eq!(message(&status, "NamespaceDeletionDiscoveryFailure").0, "False");

        remaining.undiscovered.push("a.io/v1".into());
        assert!(remaining.tell(&mut status, Timestamp::MAX));
        assert_eq!(
            message(&status, "NamespaceDeletionDiscoveryFailure"),
            (
                "True",
                "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
                 a.io/v1: stale GroupVersion discovery: a.io/v1"
            )
        );
        let undiscovered = vec!["a.io/v1".to_owned()];
        assert!(!Remaining { undiscovered, ..Remaining::default() }.is_empty(), "it may have something");

        assert!(Remaining::default().tell(&mut status, Timestamp::MAX));
        for condition in status.conditions.iter().flatten() {
            assert_eq!(condition.status, "False", "{}", condition.type_);
        }
    }
}
