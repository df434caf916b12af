//! From a URL path to the kind, the object and the subresource it names. Looks at nothing else.

use std::sync::Arc;

use crate::{
    api::{Status, subresource::Subresource},
    kinds::{Kind, Kinds},
};

/// What a request is about.
#[derive(Clone, Debug)]
pub struct Target {
    pub kind: Arc<Kind>,
    /// `None` for cluster-scoped kinds, and for all namespaces.
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<&'static Subresource>,
}

impl Target {
    /// Of `/api/v1/…` or `/apis/{group}/{version}/…`, with at least a resource in it.
    pub fn of(path: &str, kinds: &Kinds) -> Result<Self, Status> {
        let segments: Vec<String> =
            path.split('/').skip(1).map(decode_percent).collect::<Option<_>>().ok_or_else(Status::unknown_path)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let segments = match segments.as_slice() {
            [rest @ .., ""] => rest,
            all => all,
        };
        let (group, version, rest) = match segments {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Status::unknown_path()),
        };
        let find = |plural: &str| kinds.by_path(group, version, plural).ok_or_else(Status::unknown_path);
        let (namespace, rest) = match rest {
            // `namespaces/x`, `namespaces/x/status` and `…/finalize` are about the Namespace itself.
            ["namespaces", namespace, plural, ..]
                if !(group.is_empty() && matches!(*plural, "status" | "finalize") && rest.len() == 3) =>
            {
                (Some((*namespace).to_owned()), &rest[2..])
            }
            _ => (None, rest),
        };
        let (kind, name, subresource) = match rest {
            [plural] => (find(plural)?, None, None),
            [plural, name] => (find(plural)?, Some(*name), None),
            [plural, name, subresource] => {
                let kind = find(plural)?;
                let known = Subresource::of(&kind, subresource).ok_or_else(Status::unknown_path)?;
                (kind, Some(*name), Some(known))
            }
            _ => return Err(Status::unknown_path()),
        };
        if namespace.is_some() && !kind.namespaced || namespace.is_none() && kind.namespaced && name.is_some() {
            return Err(Status::unknown_path());
        }
        if name.is_some_and(str::is_empty) || namespace.as_deref().is_some_and(str::is_empty) {
            return Err(Status::unknown_path());
        }
        Ok(Self { kind, namespace, name: name.map(str::to_owned), subresource })
    }
}

fn decode_percent(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    // A slash in a name would make another key of it.
    String::from_utf8(bytes).ok().filter(|text| !text.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resource, namespace, name and subresource.
    type Parts = (String, Option<String>, Option<String>, Option<&'static str>);

    fn target(path: &str) -> Option<Parts> {
        Target::of(path, &Kinds::built_in())
            .ok()
            .map(|t| (t.kind.resource(), t.namespace, t.name, t.subresource.map(|s| s.segment)))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn paths_name_kinds_objects_and_subresources() {
        assert_eq!(target("/api/v1/pods"), Some(("pods".into(), None, None, None)));
        assert_eq!(target("/api/v1/namespaces/a/pods"), Some(("pods".into(), some("a"), None, None)));
        assert_eq!(
            target("/apis/apps/v1/namespaces/a/deployments/b/scale"),
            Some(("deployments.apps".into(), some("a"), some("b"), Some("scale")))
        );
        assert_eq!(
            target("/api/v1/namespaces/a/finalize"),
            Some(("namespaces".into(), None, some("a"), Some("finalize")))
        );
        assert_eq!(target("/api/v1/namespaces/a"), Some(("namespaces".into(), None, some("a"), None)));
        assert_eq!(target("/api/v1/nodes/n%2D1"), Some(("nodes".into(), None, some("n-1"), None)));
    }

    #[test]
    fn what_is_not_served_is_not_found() {
        for path in [
            "/api/v1/frobs",
            "/api/v2/pods",
            "/apis/apps/v1",
            "/api/v1/pods/x",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/pods/b/frob",
            "/api/v1/namespaces/a/pods/b%2Fc",
            "/api/v1/namespaces/a/pods/%zz",
        ] {
            assert_eq!(target(path), None, "{path}");
        }
    }
}
