//! What a request wants to do, as authorisation sees it: read from method, path and query alone.
//!
//! Never looks at the body, and never says whether the request may.

use http::Method;

/// Kubernetes' authorisation attributes of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// A request for objects of the API.
    Resource(Resource),
    /// Everything else: discovery, OpenAPI, health.
    Path { verb: String, path: String },
}

/// A request on a resource of the API. Empty strings stand for what the path does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    /// The object's name; for list and watch the one that `fieldSelector=metadata.name=…` names.
    pub name: String,
    /// The node that `fieldSelector=spec.nodeName=…` restricts a list or watch to.
    pub node_selector: String,
}

impl Attributes {
    /// Reads the attributes the way `RequestInfoFactory` of `k8s.io/apiserver` does.
    pub fn of(method: &Method, path: &str, query: Option<&str>) -> Self {
        resource_of(method, path, query.unwrap_or_default())
            .map(Self::Resource)
            .unwrap_or_else(|| Self::Path { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned() })
    }

    /// Whether the answer may have no end: a watch, or what an agent streams.
    pub fn is_long_running(&self) -> bool {
        matches!(self, Self::Resource(r) if r.verb == "watch" || matches!(r.subresource.as_str(), "log" | "proxy"))
    }
}

fn resource_of(method: &Method, path: &str, query: &str) -> Option<Resource> {
    let decoded: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(percent_decode).collect();
    let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let (group, version, rest) = match segments.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    // The old form `/api/v1/watch/…` of a watch.
    let (old_watch, rest) = match rest {
        ["watch", rest @ ..] => (true, rest),
        _ => (false, rest),
    };
    let (namespace, rest) = match rest {
        // `status` and `finalize` are of the namespace itself, which has itself for its namespace.
        ["namespaces", namespace] | ["namespaces", namespace, "status" | "finalize", ..] => (*namespace, rest),
        ["namespaces", namespace, rest @ ..] => (*namespace, rest),
        _ => ("", rest),
    };
    let (resource, name, subresource) = match rest {
        [] => return None,
        [resource] => (*resource, "", ""),
        [resource, name] => (*resource, *name, ""),
        [resource, name, subresource, ..] => (*resource, *name, *subresource),
    };
    let mut found = Resource {
        verb: "",
        group: group.into(),
        version: version.into(),
        namespace: namespace.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        name: name.into(),
        node_selector: String::new(),
    };
    let parameters: Vec<(String, String)> = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (form_decode(k), form_decode(v)))
        .collect();
    let watch = old_watch || parameters.iter().any(|(k, v)| k == "watch" && !matches!(v.as_str(), "0" | "false"));
    let collection = name.is_empty();
    found.verb = match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if collection => "deletecollection",
        "DELETE" => "delete",
        _ if watch && subresource.is_empty() => "watch",
        _ if collection => "list",
        _ => "get",
    };
    let mut selectors = parameters.iter().filter(|(k, _)| k == "fieldSelector").map(|(_, v)| v);
    // Of two selectors it would be a guess which one the handler takes: neither then narrows what is asked for.
    if let (Some(selector), None, "list" | "watch" | "deletecollection") =
        (selectors.next(), selectors.next(), found.verb)
    {
        for term in selector.split(',') {
            let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) else { continue };
            match field {
                "metadata.name" if found.name.is_empty() => found.name = value.into(),
                "spec.nodeName" => found.node_selector = value.into(),
                _ => {}
            }
        }
    }
    Some(found)
}

fn form_decode(text: &str) -> String {
    percent_decode(&text.replace('+', " "))
}

/// Decodes `%XX`; anything that is not such a triple stands for itself.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(method: &str, uri: &str) -> Resource {
        let uri: http::Uri = uri.parse().unwrap();
        match Attributes::of(&method.parse().unwrap(), uri.path(), uri.query()) {
            Attributes::Resource(resource) => resource,
            path => panic!("{path:?}"),
        }
    }

    #[test]
    fn paths_and_methods_become_verbs_and_names() {
        let cases = [
            ("GET", "/api/v1/pods", "list", "", "", "pods", "", ""),
            ("GET", "/api/v1/namespaces/a/pods", "list", "", "a", "pods", "", ""),
            ("GET", "/api/v1/namespaces/a/pods/b", "get", "", "a", "pods", "", "b"),
            ("PATCH", "/api/v1/namespaces/a/pods/b/status", "patch", "", "a", "pods", "status", "b"),
            ("GET", "/api/v1/namespaces/a/pods/b/log?follow=true", "get", "", "a", "pods", "log", "b"),
            ("GET", "/api/v1/namespaces/a", "get", "", "a", "namespaces", "", "a"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update", "", "a", "namespaces", "finalize", "a"),
            ("GET", "/api/v1/namespaces", "list", "", "", "namespaces", "", ""),
            ("GET", "/api/v1/nodes/n/proxy/pods/x", "get", "", "", "nodes", "proxy", "n"),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection",
                "apps",
                "a",
                "deployments",
                "",
                "",
            ),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments/d", "delete", "apps", "a", "deployments", "", "d"),
            ("GET", "/api/v1/pods?watch=true", "watch", "", "", "pods", "", ""),
            ("GET", "/api/v1/pods?watch=1", "watch", "", "", "pods", "", ""),
            ("GET", "/api/v1/pods?watch=0", "list", "", "", "pods", "", ""),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch", "", "a", "pods", "", ""),
            ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1&watch=true", "watch", "", "", "nodes", "", "n1"),
        ];
        for (method, uri, verb, group, namespace, plural, subresource, name) in cases {
            let r = resource(method, uri);
            assert_eq!(
                (
                    r.verb,
                    r.group.as_str(),
                    r.namespace.as_str(),
                    r.resource.as_str(),
                    r.subresource.as_str(),
                    r.name.as_str()
                ),
                (verb, group, namespace, plural, subresource, name),
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn a_node_selector_is_read() {
        assert_eq!(
            resource("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1,metadata.name!=x").node_selector,
            "n1"
        );
        assert_eq!(resource("GET", "/api/v1/pods?fieldSelector=spec.nodeName!=n1").node_selector, "");
    }

    #[test]
    fn two_field_selectors_narrow_nothing() {
        let r = resource("GET", "/api/v1/pods?fieldSelector=&fieldSelector=spec.nodeName%3Dn1");
        assert_eq!(r.node_selector, "");
        let r = resource("GET", "/api/v1/pods?field%53elector=&fieldSelector=spec.nodeName%3Dn1");
        assert_eq!(r.node_selector, "");
    }

    #[test]
    fn an_encoded_slash_does_not_make_another_resource() {
        let r = resource("GET", "/api/v1/namespaces/a/pods/b%2Flog");
        assert_eq!((r.name.as_str(), r.subresource.as_str()), ("b/log", ""));
    }

    #[test]
    fn discovery_is_a_path() {
        for path in ["/api", "/apis", "/api/v1", "/apis/apps/v1", "/openapi/v3", "/version", "/"] {
            let attributes = Attributes::of(&Method::GET, path, None);
            assert_eq!(attributes, Attributes::Path { verb: "get".into(), path: path.into() });
        }
    }
}
