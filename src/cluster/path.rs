//! URL paths of the API. Refuses names that cannot be one segment of a path. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::ResourceType;

/// A name that no object can have. A request with it would reach another resource: `DELETE …/pods/` deletes all pods.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("resource name may not be empty")]
    Empty,
    #[error("invalid resource name {name:?}: it may not be '.' or '..', and may not contain '/' or '%'")]
    NotASegment { name: String },
}

/// Refuses what client-go refuses: an empty name, and one that would be more or less than one segment of a path.
pub fn check_name(name: &str) -> Result<(), InvalidName> {
    match name {
        "" => Err(InvalidName::Empty),
        "." | ".." => Err(InvalidName::NotASegment { name: name.to_owned() }),
        _ if name.contains(['/', '%']) => Err(InvalidName::NotASegment { name: name.to_owned() }),
        _ => Ok(()),
    }
}

/// `/api/v1/namespaces/default/pods`, or the cluster-wide list where `namespace` is `None` or empty.
pub fn resource_path(kind: &ResourceType, namespace: Option<&str>) -> String {
    let mut path = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    if let Some(namespace) = namespace.filter(|namespace| kind.namespaced && !namespace.is_empty()) {
        path.push_str("/namespaces/");
        path.push_str(&segment(namespace));
    }
    path.push('/');
    path.push_str(&kind.plural);
    path
}

/// The path of one object; `namespace` is ignored for kinds without one.
///
/// Every request for one object takes its path from here, so that none is ever sent without a name.
pub fn object_path(kind: &ResourceType, namespace: &str, name: &str) -> Result<String, InvalidName> {
    check_name(name)?;
    Ok(format!("{}/{}", resource_path(kind, Some(namespace)), segment(name)))
}

/// `path` with `query` behind it, values encoded.
pub fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    for (i, (key, value)) in query.iter().enumerate() {
        out.push(if i == 0 && !path.contains('?') { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        out.push_str(&segment(value));
    }
    out
}

/// The field selector `field=value`, with the characters escaped that mean something in a selector.
pub fn field_equals(field: &str, value: &str) -> String {
    let escaped = value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
    format!("{field}={escaped}")
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub fn segment(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_encoded_in_the_query() {
        assert_eq!(
            with_query("/a", &[("labelSelector", "app in (x, y)"), ("b", "1")]),
            "/a?labelSelector=app%20in%20%28x%2C%20y%29&b=1"
        );
    }

    #[test]
    fn a_value_cannot_add_a_term_to_a_field_selector() {
        assert_eq!(field_equals("metadata.name", "web-1"), "metadata.name=web-1");
        assert_eq!(field_equals("metadata.name", r"a,b=c\d"), r"metadata.name=a\,b\=c\\d");
    }

    #[test]
    fn a_name_cannot_leave_its_path_segment() {
        assert_eq!(segment("../x"), "..%2Fx");
    }

    #[test]
    fn the_path_of_an_object_without_a_name_does_not_exist() {
        let pods = ResourceType { version: "v1".into(), plural: "pods".into(), namespaced: true, ..Default::default() };
        assert_eq!(object_path(&pods, "default", ""), Err(InvalidName::Empty));
        for name in [".", "..", "a/b", "../services/x", "a%2fb"] {
            assert_eq!(object_path(&pods, "default", name), Err(InvalidName::NotASegment { name: name.into() }));
        }
        assert_eq!(object_path(&pods, "default", "web-1").as_deref(), Ok("/api/v1/namespaces/default/pods/web-1"));
    }
}
