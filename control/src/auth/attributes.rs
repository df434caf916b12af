//! What authorisation is asked about: a verb on a resource, or on another path. Made from a parsed request, or by a
//! review.

use crate::request::{RequestInfo, path::RequestPath, selector::FieldSelector};

/// Kubernetes' authorisation attributes, without the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes<'a> {
    /// Objects of the API.
    Resource(Resource<'a>),
    /// Everything else: discovery, OpenAPI, health.
    Path {
        /// The HTTP method in lower case.
        verb: String,
        /// As it was sent, without the query.
        path: &'a str,
    },
}

/// A verb on a resource of the API. Empty text stands for what is not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resource<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: &'a str,
    /// Empty for the core group.
    pub group: &'a str,
    /// `v1`
    pub version: &'a str,
    /// Of a Namespace, the namespace that it is.
    pub namespace: &'a str,
    /// The plural: `pods`.
    pub resource: &'a str,
    /// `status`, `log`…
    pub subresource: &'a str,
    /// The object's name; for requests about many the one that the field selector demands.
    pub name: &'a str,
    /// The selector that narrows a list, watch or deletecollection: the very one that the handler will apply.
    pub fields: Option<&'a FieldSelector>,
}

impl<'a> Attributes<'a> {
    /// The attributes of a request.
    pub fn of(info: &'a RequestInfo) -> Self {
        let path = match &info.path {
            RequestPath::Resource(path) => path,
            RequestPath::Other(path) => {
                return Self::Path { verb: info.method.as_str().to_ascii_lowercase(), path };
            }
        };
        let about_many = path.name.is_none();
        let fields = about_many.then_some(&info.query.field_selector);
        let name = path.name.as_deref().or_else(|| fields.and_then(FieldSelector::name)).unwrap_or_default();
        let is_namespace = path.group.is_empty() && path.resource == "namespaces";
        let namespace = if is_namespace { path.name.as_deref() } else { path.namespace.as_deref() };
        Self::Resource(Resource {
            verb: info.verb.as_str(),
            group: &path.group,
            version: &path.version,
            namespace: namespace.unwrap_or_default(),
            resource: &path.resource,
            subresource: path.subresource.as_deref().unwrap_or_default(),
            name,
            fields,
        })
    }
}

impl Resource<'_> {
    /// Whether every object that the request can touch has `value` in `field`.
    pub fn is_narrowed_to(&self, field: &str, value: &str) -> bool {
        self.fields.and_then(|fields| fields.exact(field)) == Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::info;

    #[test]
    fn names_come_from_the_path_or_from_the_selector_that_the_handler_applies() {
        let name = |uri: &str| match Attributes::of(&info("GET", uri)) {
            Attributes::Resource(r) => (r.verb.to_owned(), r.namespace.to_owned(), r.name.to_owned()),
            path => panic!("{path:?}"),
        };
        let case = |verb: &str, namespace: &str, name: &str| (verb.to_owned(), namespace.to_owned(), name.to_owned());
        assert_eq!(name("/api/v1/namespaces/a"), case("get", "a", "a"));
        assert_eq!(name("/api/v1/namespaces/a/pods/b"), case("get", "a", "b"));
        assert_eq!(name("/api/v1/nodes?fieldSelector=metadata.name%3Dn1&watch=true"), case("watch", "", "n1"));
        // One term with an escaped comma, not two terms: it names nothing.
        let escaped = "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!%3Dx%5C%2Cmetadata.name%5C%3Ds";
        assert_eq!(name(escaped), case("list", "a", ""));
        assert_eq!(name("/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!%3Ds"), case("list", "a", ""));
        // Of two selectors the first counts, here and for the handler.
        let twice = "/api/v1/nodes?fieldSelector=&fieldSelector=metadata.name%3Dn1";
        assert_eq!(name(twice), case("list", "", ""));
    }
}
