//! URL paths of the API. Pure.

use super::ResourceType;

/// `/api/v1/namespaces/default/pods`, or the cluster-wide list where `namespace` is `None`.
pub fn resource_path(kind: &ResourceType, namespace: Option<&str>) -> String {
    let mut path = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    if let Some(namespace) = namespace.filter(|_| kind.namespaced) {
        path.push_str("/namespaces/");
        path.push_str(&segment(namespace));
    }
    path.push('/');
    path.push_str(&kind.plural);
    path
}

/// The path of one object; `namespace` is ignored for kinds without one.
pub fn object_path(kind: &ResourceType, namespace: &str, name: &str) -> String {
    format!("{}/{}", resource_path(kind, Some(namespace)), segment(name))
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

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
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
    fn a_name_cannot_leave_its_path_segment() {
        assert_eq!(segment("../x"), "..%2Fx");
    }
}
