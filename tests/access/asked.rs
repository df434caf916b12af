//! What was asked, read where it stands: the verb and the resource of a review or of a request. Pure.

use std::borrow::Cow;

/// What was asked, as the report shows it.
pub struct Asked<'a> {
    pub part: &'static str,
    pub who: &'a str,
    /// The attributes of a review as JSON, or a request: its method, its path, and more.
    pub what: &'a str,
}

/// Verb and resource. Empty text is not said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Target<'a> {
    pub verb: Cow<'a, str>,
    pub group: Cow<'a, str>,
    pub resource: Cow<'a, str>,
    pub subresource: Cow<'a, str>,
    pub name: Cow<'a, str>,
}

impl<'a> Asked<'a> {
    /// Whether a node asks: by its name, and by its group where that is shown.
    pub fn is_by_node(&self) -> bool {
        let (name, groups) = self.who.split_once(' ').unwrap_or((self.who, "\"system:nodes\""));
        name.strip_prefix("system:node:").is_some_and(|node| !node.is_empty()) && groups.contains("\"system:nodes\"")
    }

    /// The resource that is asked for, nothing where it is a path without one.
    pub fn target(&self) -> Option<Target<'a>> {
        if self.what.starts_with('{') { of_review(self.what) } else { of_request(self.what) }
    }

    /// Whether it is about this resource, or something below it.
    pub fn is_about(&self, group: &str, resource: &str) -> bool {
        self.target().is_some_and(|target| target.group == group && target.resource == resource)
    }

    /// Whether it is about objects of this resource themselves, by one of these verbs.
    pub fn asks(&self, verbs: &[&str], group: &str, resource: &str) -> bool {
        let verb = |target: &Target| verbs.iter().any(|verb| *verb == target.verb);
        self.is_about(group, resource)
            && self.target().is_some_and(|target| target.subresource.is_empty() && verb(&target))
    }

    /// The subresource; empty where none is asked for.
    pub fn subresource(&self) -> Cow<'a, str> {
        self.target().unwrap_or_default().subresource
    }

    /// Whether it names one object, in its path, its attributes or its selector.
    pub fn names_one(&self) -> bool {
        self.target().is_some_and(|target| !target.name.is_empty()) || self.what.contains("metadata.name")
    }

    /// Whether it is one of the objects that were made before.
    pub fn names_known(&self) -> bool {
        self.target().is_some_and(|target| target.name.starts_with("of-"))
    }
}

fn of_review(attributes: &str) -> Option<Target<'static>> {
    let attributes: serde_json::Value = serde_json::from_str(attributes).ok()?;
    let text = |field: &str| Cow::Owned(attributes[field].as_str().unwrap_or_default().to_owned());
    attributes["resource"].as_str()?;
    Some(Target {
        verb: text("verb"),
        group: text("group"),
        resource: text("resource"),
        subresource: text("subresource"),
        name: text("name"),
    })
}

/// As the API server reads a path: `/api/VERSION` or `/apis/GROUP/VERSION`, a namespace, resource, name, subresource.
fn of_request(request: &str) -> Option<Target<'_>> {
    let mut words = request.split(' ');
    let (method, uri) = (words.next()?, words.next()?);
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let (group, rest) = match segments.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let rest = match rest {
        // Of the Namespace itself.
        ["namespaces", _, "status" | "finalize"] => rest,
        ["namespaces", _, inner @ ..] if !inner.is_empty() => inner,
        _ => rest,
    };
    let segment = |at: usize| rest.get(at).copied().unwrap_or_default();
    let (resource, name, subresource) = (segment(0), segment(1), segment(2));
    let verb = match method {
        "GET" | "HEAD" if query.split('&').any(|one| matches!(one, "watch=1" | "watch=true")) => "watch",
        "GET" | "HEAD" if name.is_empty() => "list",
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if name.is_empty() => "deletecollection",
        "DELETE" => "delete",
        _ => "",
    };
    (!resource.is_empty()).then(|| Target {
        verb: verb.into(),
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        name: name.into(),
    })
}

/// Run by xtask: a bench has no tests of its own.
#[cfg(test)]
mod tests {
    use super::*;

    fn asked(what: &str) -> Asked<'_> {
        Asked { part: "requests", who: "system:node:n1", what }
    }

    #[test]
    fn a_resource_is_read_from_its_place_alone() {
        let secret = asked("GET /api/v1/namespaces/team-a/secrets/of-n1");
        assert!(!secret.is_about("", "namespaces") && secret.asks(&["get"], "", "secrets") && secret.names_known());
        assert!(!asked("GET /api/v1/namespaces/nodes/secrets/nodes").is_about("", "nodes"));
        assert!(asked("GET /api/v1/namespaces/team-a").asks(&["get"], "", "namespaces"));
        assert!(!asked("PUT /api/v1/namespaces/team-a/finalize").asks(&["update"], "", "namespaces"));
        assert_eq!(asked("PUT /api/v1/namespaces/team-a/finalize").subresource(), "finalize");
        assert!(asked("GET /api/v1/nodes?watch=1").asks(&["watch"], "", "nodes"));
        assert!(!asked("GET /api/v1/nodes/n1/proxy/nodes").asks(&["get"], "", "nodes"));
        assert!(!asked("GET /apis/example.com/v1/nodes").is_about("", "nodes"));
        assert_eq!(asked("GET /healthz/nodes").target(), None);
        assert_eq!(asked("GET /apis/apps/v1/").target(), None);
        let request = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        let approval = format!("PATCH {request}/a/approval?dryRun=All {{}}");
        assert_eq!(asked(&approval).target().unwrap().subresource, "approval");
    }

    #[test]
    fn a_review_is_read_by_its_fields() {
        let review = r#"{"group":"","name":"nodes","resource":"secrets","subresource":"","verb":"get"}"#;
        assert!(asked(review).asks(&["get"], "", "secrets") && !asked(review).is_about("", "nodes"));
        assert_eq!(asked(r#"{"path":"/metrics","verb":"get"}"#).target(), None);
    }

    #[test]
    fn a_node_has_a_name_and_the_group_of_nodes() {
        let is_node = |who| Asked { part: "reviews", who, what: "" }.is_by_node();
        assert!(is_node("system:node:n1") && is_node("system:node:n1 [\"system:nodes\", \"system:authenticated\"]"));
        assert!(!is_node("system:node:n1 [\"system:authenticated\"]"));
        assert!(!is_node("system:node: [\"system:nodes\"]") && !is_node("n1 [\"system:nodes\"]"));
    }
}
