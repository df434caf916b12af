//! What authorisation is asked about: a verb on a resource, or on another path. Made from a parsed request, or by a
//! review.

use crate::{
    kinds::names,
    request::{
        RequestInfo, Verb,
        path::RequestPath,
        selector::{FieldSelector, LabelSelector},
    },
};

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
    /// The object's name; of a list or watch the one that the field selector demands.
    pub name: &'a str,
    /// The selector that narrows a list, watch or deletecollection: the very one that the handler will apply. `None`
    /// for every other verb: what is created has the name that its body says, whatever a selector says.
    pub fields: Option<&'a FieldSelector>,
    /// The same by labels. Only webhooks look at it.
    pub labels: Option<&'a LabelSelector>,
}

impl<'a> Attributes<'a> {
    /// The attributes of a request.
    pub fn of(info: &'a RequestInfo) -> Self {
        let path = match &info.path {
            RequestPath::Resource(path) | RequestPath::Unserved(path) => path,
            RequestPath::Other(path) => {
                return Self::Path { verb: info.method.as_str().to_ascii_lowercase(), path: path.as_str() };
            }
        };
        // As `RequestInfoFactory` does: the old form of a watch has no selectors, and only what is read has a name by
        // one.
        let about_many = path.name.is_none() && !path.watch_prefix;
        let is_narrowed = about_many && matches!(info.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
        let fields = is_narrowed.then_some(&info.query.field_selector);
        let selected = fields.filter(|_| info.verb != Verb::DeleteCollection).and_then(FieldSelector::name);
        let selected = selected.filter(|name| names::path_segment(name).is_empty());
        let name = path.name.as_deref().or(selected).unwrap_or_default();
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
            labels: is_narrowed.then_some(&info.query.label_selector),
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
    fn a_selector_names_nothing_that_is_created_or_deleted() {
        let selector = "fieldSelector=metadata.name%3Dapp";
        let of = |method: &str, path: &str| {
            let info = info(method, &format!("{path}?{selector}"));
            match Attributes::of(&info) {
                Attributes::Resource(r) => {
                    (r.verb.to_owned(), r.name.to_owned(), r.is_narrowed_to("metadata.name", "app"))
                }
                path => panic!("{path:?}"),
            }
        };
        let secrets = "/api/v1/namespaces/a/secrets";
        assert_eq!(of("GET", secrets), ("list".to_owned(), "app".to_owned(), true));
        assert_eq!(of("POST", secrets), ("create".to_owned(), String::new(), false));
        assert_eq!(of("DELETE", secrets), ("deletecollection".to_owned(), String::new(), true));
        assert_eq!(of("PATCH", secrets), ("patch".to_owned(), String::new(), false));
        let watch = "/api/v1/watch/namespaces/a/secrets";
        assert_eq!(of("GET", watch), ("watch".to_owned(), String::new(), false));
        let info = info("GET", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Da%2Fb");
        let Attributes::Resource(resource) = Attributes::of(&info) else { panic!("no resource") };
        assert_eq!(resource.name, "", "no object has such a name");
    }

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
