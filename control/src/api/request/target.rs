//! From a parsed path to the kind, the object and the subresource it names. Looks at nothing else.

use std::sync::Arc;

use crate::{
    api::subresource::Subresource,
    kinds::{Kind, Kinds},
    request::path::ResourcePath,
    status::Status,
};

/// What a request is about.
#[derive(Clone, Debug)]
pub struct RequestTarget {
    /// The kind that the path names, as it was when the request came.
    pub kind: Arc<Kind>,
    /// `None` for cluster-scoped kinds, and for all namespaces.
    pub namespace: Option<String>,
    /// `None` for requests about many objects.
    pub name: Option<String>,
    /// `None` for the object itself.
    pub subresource: Option<&'static Subresource>,
}

impl RequestTarget {
    /// Looks up what a path names. Refuses kinds and subresources that are not served, and a scope that is not the
    /// kind's.
    pub fn of(path: &ResourcePath, kinds: &Kinds) -> Result<Self, Status> {
        let kind = kinds.by_path(&path.group, &path.version, &path.resource).ok_or_else(Status::unknown_path)?;
        let subresource = match path.subresource.as_deref() {
            None => None,
            Some(segment) => Some(Subresource::of(&kind, segment).ok_or_else(Status::unknown_path)?),
        };
        let rest_is_the_agents = subresource.is_some_and(|subresource| subresource.any_path);
        if path.empty_namespace && kind.namespaced && path.name.is_some() {
            return Err(Status::bad_request("Namespace parameter required."));
        }
        let wrong_scope = (path.namespace.is_some() || path.empty_namespace) && !kind.namespaced
            || path.namespace.is_none() && kind.namespaced && path.name.is_some();
        if wrong_scope || !rest_is_the_agents && !path.rest.bytes().all(|byte| byte == b'/') {
            return Err(Status::unknown_path());
        }
        Ok(Self { kind, namespace: path.namespace.clone(), name: path.name.clone(), subresource })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::parse;

    /// Resource, namespace, name and subresource.
    type Parts = (String, Option<String>, Option<String>, Option<&'static str>);

    fn target(path: &str) -> Option<Parts> {
        let info = parse("GET", path).ok()?;
        let target = RequestTarget::of(info.resource()?, &Kinds::built_in()).ok()?;
        Some((target.kind.resource(), target.namespace, target.name, target.subresource.map(|s| s.segment)))
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
        assert_eq!(target("/api/v1/namespaces/a/pods/b/log//"), target("/api/v1/namespaces/a/pods/b/log"));
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
            "/api/v1/namespaces/a/pods/b/status/frob",
            "/api/v1/namespaces/a/pods/b%2Fc",
            "/api/v1/namespaces/a/pods/%zz",
        ] {
            assert_eq!(target(path), None, "{path}");
        }
    }
}
