//! Fields that a write cannot change, whatever its body says, and so cannot come to own: those that the strategy of the
//! kind resets (`GetResetFields` in Kubernetes).

use super::{compare::Difference, path::PathElement, set::FieldSet};
use crate::kinds::Kind;

type Paths = &'static [&'static [&'static str]];

/// What of a set of fields a write can own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All but these and what is below them.
    Without(Paths),
    /// Only this and what is below it.
    Only(&'static [&'static str]),
}

const STATUS: Paths = &[&["status"]];
const SPEC: Paths = &[&["spec"]];
const SPEC_AND_METADATA: Paths = &[&["metadata"], &["spec"]];

impl Filter {
    /// Of writes to objects of a stored kind, through a subresource or the main resource.
    pub fn of(kind: &Kind, subresource: Option<&str>) -> Self {
        let (group, plural) = (&*kind.group, &*kind.plural);
        match (subresource, group, plural) {
            (None, "certificates.k8s.io", "certificatesigningrequests") => Self::Without(&[&["spec"], &["status"]]),
            (None, ..) if kind.has("status") => Self::Without(STATUS),
            (Some("status"), "", "pods") => {
                Self::Without(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]])
            }
            (Some("status"), "apps", "deployments") => Self::Without(&[&["spec"], &["metadata", "labels"]]),
            (Some("status"), "certificates.k8s.io", "certificatesigningrequests") => {
                Self::Without(&[&["spec"], &["status", "conditions"]])
            }
            (
                Some("status"),
                "admissionregistration.k8s.io" | "flowcontrol.apiserver.k8s.io" | "resource.k8s.io",
                _,
            )
            | (Some("status"), "storage.k8s.io", "volumeattachments")
            | (Some("status"), "apiextensions.k8s.io", "customresourcedefinitions")
            | (Some("status"), "apiregistration.k8s.io", "apiservices") => Self::Without(SPEC_AND_METADATA),
            (Some("status"), ..) => Self::Without(SPEC),
            (Some("approval"), ..) => Self::Without(&[&["spec"], &["status", "certificate"]]),
            (Some("finalize"), ..) => Self::Without(STATUS),
            // Kubernetes' storage of these two does not pass on what their strategies reset: whoever sends another
            // field owns it, although it stays as it was.
            (Some("ephemeralcontainers" | "resize"), ..) => Self::Without(&[]),
            (Some("scale"), ..) => Self::Only(&["spec", "replicas"]),
            _ => Self::Without(&[]),
        }
    }

    /// Takes out of a set what cannot be owned.
    pub fn apply(self, set: &mut FieldSet<'_>) {
        match self {
            Self::Without(paths) => {
                for path in paths {
                    let path: Vec<PathElement<'_>> = path.iter().map(|name| PathElement::field(*name)).collect();
                    set.subtract_with_below(&FieldSet::of_path(&path));
                }
            }
            Self::Only(path) => set.retain_path(path),
        }
    }

    /// The same for what changed.
    pub fn apply_to(self, difference: &mut Difference<'_>) {
        self.apply(&mut difference.changed);
        self.apply(&mut difference.removed);
    }
}

/// Takes out what nobody owns: what names an object, and what the server alone decides.
pub fn strip(set: &mut FieldSet<'_>) {
    const METADATA: [&str; 9] = [
        "clusterName",
        "creationTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    for name in ["apiVersion", "kind", "metadata"] {
        set.subtract(&FieldSet::of_path(&[PathElement::field(name)]));
    }
    for name in METADATA {
        set.subtract(&FieldSet::of_path(&[PathElement::field("metadata"), PathElement::field(name)]));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fields_v1, *};
    use crate::kinds::Kinds;

    fn filtered(resource: (&str, &str), subresource: Option<&str>, fields: &str) -> String {
        let kind = Kinds::built_in().by_path(resource.0, "v1", resource.1).unwrap();
        let mut set = fields_v1::parse(fields).unwrap();
        Filter::of(&kind, subresource).apply(&mut set);
        fields_v1::print(&set)
    }

    #[test]
    fn each_path_owns_only_what_it_can_write() {
        let fields = r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:replicas":{}},"f:status":{"f:x":{}}}"#;
        let deployments = ("apps", "deployments");
        let main = r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:replicas":{}}}"#;
        assert_eq!(filtered(deployments, None, fields), main);
        assert_eq!(filtered(deployments, Some("status"), fields), r#"{"f:status":{"f:x":{}}}"#);
        assert_eq!(filtered(deployments, Some("scale"), fields), r#"{"f:spec":{"f:replicas":{}}}"#);
        let status = r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:status":{"f:x":{}}}"#;
        assert_eq!(filtered(("", "pods"), Some("status"), fields), status);
        assert_eq!(filtered(("", "configmaps"), None, fields), fields);
    }

    #[test]
    fn a_resize_owns_whatever_it_sent() {
        let fields =
            r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{"f:env":{}}}}}"#;
        for subresource in ["resize", "ephemeralcontainers"] {
            assert_eq!(filtered(("", "pods"), Some(subresource), fields), fields);
        }
    }

    #[test]
    fn what_names_an_object_is_nobodys() {
        let fields = r#"{"f:apiVersion":{},"f:kind":{},"f:metadata":{".":{},"f:labels":{".":{}},"f:name":{},"f:uid":{}},
            "f:spec":{}}"#;
        let mut set = fields_v1::parse(fields).unwrap();
        strip(&mut set);
        assert_eq!(fields_v1::print(&set), r#"{"f:metadata":{"f:labels":{}},"f:spec":{}}"#);
    }
}
