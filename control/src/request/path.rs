//! The path of a URL, taken apart as `RequestInfoFactory` of `k8s.io/apiserver` does. Knows no kinds.

use percent_encoding::percent_decode_str;

use crate::status::Status;

/// What a path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestPath {
    /// Objects of the API.
    Resource(ResourcePath),
    /// Everything else: discovery, OpenAPI, health.
    Other(NonResourcePath),
}

/// A path that is no resource's, as it was sent: a rule for `/healthz` says nothing of `/healthz/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonResourcePath(String);

impl NonResourcePath {
    /// The whole path, as a rule of RBAC names it in `nonResourceURLs`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments, without slashes at its end; one that is empty for the root.
    pub fn segments(&self) -> Vec<&str> {
        self.0.trim_end_matches('/').split('/').skip(1).chain(self.is_root().then_some("")).collect()
    }

    /// Whether it is longer than its segments.
    pub fn ends_in_slash(&self) -> bool {
        self.0.ends_with('/') && !self.is_root()
    }

    fn is_root(&self) -> bool {
        self.0 == "/"
    }
}

/// `/api/v1/…` or `/apis/GROUP/VERSION/…` with at least a resource in it. No part is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcePath {
    /// Empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// The plural: `pods`.
    pub resource: String,
    /// `None` for what is cluster-scoped, and for all namespaces. A Namespace's own path has a name and no namespace.
    pub namespace: Option<String>,
    /// `None` for requests about many objects.
    pub name: Option<String>,
    /// `status`, `log`…
    pub subresource: Option<String>,
    /// What follows the subresource, as it was sent and not decoded: the path for a proxy. Starts with a slash, or is
    /// empty.
    pub rest: String,
    /// The old form of a watch, `/api/v1/watch/…`.
    pub watch_prefix: bool,
}

impl RequestPath {
    /// Takes a path apart. Slashes at the end of a resource path say nothing. One with another empty part, or an
    /// undecodable or dotted one, names nothing that is served.
    pub fn of(path: &str) -> Result<Self, Status> {
        let mut raw = path.strip_prefix('/').unwrap_or(path);
        let versioned = match raw.split('/').next() {
            Some("api") => 2,
            Some("apis") => 3,
            _ => return Ok(Self::other(path)),
        };
        let mut segments: Vec<String> = Vec::with_capacity(8);
        let mut rest = String::new();
        let mut more = true;
        while more {
            let (segment, tail) = match raw.split_once('/') {
                Some((segment, tail)) => (segment, Some(tail)),
                None => (raw, None),
            };
            if raw.bytes().all(|byte| byte == b'/') {
                break;
            }
            segments.push(decode(segment).ok_or_else(Status::unknown_path)?);
            more = tail.is_some();
            raw = tail.unwrap_or_default();
            if more && is_complete(&segments, versioned) {
                rest = format!("/{raw}");
                break;
            }
        }
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, parts) = match segments.as_slice() {
            ["api", version, parts @ ..] => ("", *version, parts),
            ["apis", group, version, parts @ ..] => (*group, *version, parts),
            _ => return Ok(Self::other(path)),
        };
        let (watch_prefix, parts) = match parts {
            ["watch", parts @ ..] if !parts.is_empty() => (true, parts),
            _ => (false, parts),
        };
        let (namespace, parts) = match parts {
            ["namespaces", namespace, parts @ ..] if !parts.is_empty() && !is_of_namespace_itself(group, parts) => {
                (Some((*namespace).to_owned()), parts)
            }
            _ => (None, parts),
        };
        let mut parts = parts.iter().map(|part| (*part).to_owned());
        let Some(resource) = parts.next() else { return Ok(Self::other(path)) };
        let (name, subresource) = (parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(Status::unknown_path());
        }
        if watch_prefix && subresource.is_some() {
            return Err(Status::unknown_path());
        }
        Ok(Self::Resource(ResourcePath {
            group: group.to_owned(),
            version: version.to_owned(),
            resource,
            namespace,
            name,
            subresource,
            rest,
            watch_prefix,
        }))
    }

    fn other(path: &str) -> Self {
        Self::Other(NonResourcePath(if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
    }
}

/// `namespaces/x/status` and `…/finalize` are about the Namespace itself.
fn is_of_namespace_itself(group: &str, parts: &[&str]) -> bool {
    group.is_empty() && matches!(parts, ["status" | "finalize"])
}

/// Whether the segments reach to a subresource, so that all that follows belongs to it. `prefix` segments stand before
/// the parts.
fn is_complete(segments: &[String], prefix: usize) -> bool {
    let mut parts = segments.get(prefix..).unwrap_or_default();
    if let [first, rest @ ..] = parts
        && first == "watch"
        && !rest.is_empty()
    {
        parts = rest;
    }
    let in_namespace = parts.first().is_some_and(|first| first == "namespaces") && parts.len() > 2;
    parts.len() == if in_namespace { 5 } else { 3 }
}

/// Decodes one segment; nothing where it is empty or would be another path when decoded.
fn decode(segment: &str) -> Option<String> {
    let mut triples = segment.split('%').skip(1);
    if !triples.all(|t| t.len() >= 2 && t.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit)) {
        return None;
    }
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    let is_name = !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\0']);
    is_name.then(|| text.into_owned())
}
