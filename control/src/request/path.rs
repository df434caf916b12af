//! The path of a URL, taken apart as `RequestInfoFactory` of `k8s.io/apiserver` does. Knows no kinds.

use percent_encoding::percent_decode_str;

use crate::status::Status;

/// What a path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestPath {
    /// Objects of the API.
    Resource(ResourcePath),
    /// A path with an empty, dotted or otherwise unusable part: under it nothing is served. As Kubernetes reads it for
    /// those who decide whether somebody may ask this, so that a stranger to it is refused as there.
    Unserved(ResourcePath),
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

/// `/api/v1/…` or `/apis/GROUP/VERSION/…` with at least a resource in it. No part is empty, but for those of
/// [`RequestPath::Unserved`].
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
    /// `/api/v1/namespaces//pods`: no namespace is named where one should be.
    pub empty_namespace: bool,
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
    /// Takes a path apart. Slashes at the end of a resource path say nothing. Refuses one that cannot be decoded.
    pub fn of(path: &str) -> Result<Self, Status> {
        if let Some(read) = Self::strictly(path) {
            return Ok(read);
        }
        let decoded = decode(path).ok_or_else(Status::unknown_path)?;
        Ok(ResourcePath::leniently(&decoded).map_or_else(|| Self::other(path), Self::Unserved))
    }

    /// Nothing for a path with a part that nothing served has.
    fn strictly(path: &str) -> Option<Self> {
        let mut raw = path.strip_prefix('/').unwrap_or(path);
        let versioned = match raw.split('/').next() {
            Some("api") => 2,
            Some("apis") => 3,
            Some("") if raw.len() > 1 => return None,
            _ => return Some(Self::other(path)),
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
            let segment = decode(segment)?;
            if !(is_name(&segment) || segment.is_empty() && is_before_namespace(&segments, versioned)) {
                return None;
            }
            segments.push(segment);
            more = tail.is_some();
            raw = tail.unwrap_or_default();
            if more && is_complete(&segments, versioned) {
                rest = format!("/{raw}");
                break;
            }
        }
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let Some((group, version, parts)) = versioned_parts(&segments) else { return Some(Self::other(path)) };
        let (path, unread) = ResourcePath::of_parts(group, version, parts)?;
        let path = ResourcePath { rest, ..path };
        let is_usable = unread.is_empty() && (path.subresource.is_none() || path.name.is_some() && !path.watch_prefix);
        is_usable.then_some(Self::Resource(path))
    }

    fn other(path: &str) -> Self {
        Self::Other(NonResourcePath(if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
    }
}

impl ResourcePath {
    /// As `RequestInfoFactory` reads a path, whatever stands between its slashes. Nothing for a path that is no
    /// resource's.
    fn leniently(decoded: &str) -> Option<Self> {
        let segments: Vec<&str> = decoded.trim_matches('/').split('/').collect();
        let (group, version, parts) = versioned_parts(&segments)?;
        Self::of_parts(group, version, parts).map(|(path, _)| path)
    }

    /// Of what follows the version, and the parts that follow a subresource.
    fn of_parts<'a, 'b>(group: &str, version: &str, parts: &'b [&'a str]) -> Option<(Self, &'b [&'a str])> {
        let (watch_prefix, parts) = match parts {
            ["watch", parts @ ..] if !parts.is_empty() => (true, parts),
            _ => (false, parts),
        };
        let (namespace, parts) = match parts {
            ["namespaces", namespace, parts @ ..] if !parts.is_empty() && !is_of_namespace_itself(group, parts) => {
                (Some(*namespace), parts)
            }
            _ => (None, parts),
        };
        let (resource, below) = parts.split_first()?;
        let some = |part: Option<&str>| part.filter(|part| !part.is_empty()).map(str::to_owned);
        let path = Self {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: (*resource).to_owned(),
            namespace: some(namespace),
            empty_namespace: namespace == Some(""),
            name: some(below.first().copied()),
            subresource: some(below.get(1).copied()),
            rest: String::new(),
            watch_prefix,
        };
        Some((path, below.get(2..).unwrap_or_default()))
    }
}

/// Group, version and what follows them, of a resource's path.
fn versioned_parts<'a, 'b>(segments: &'b [&'a str]) -> Option<(&'a str, &'a str, &'b [&'a str])> {
    match segments {
        ["api", version, parts @ ..] if !parts.is_empty() => Some(("", version, parts)),
        ["apis", group, version, parts @ ..] if !parts.is_empty() => Some((group, version, parts)),
        _ => None,
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

/// Whether the next segment is a namespace's name.
fn is_before_namespace(segments: &[String], prefix: usize) -> bool {
    match segments.get(prefix..).unwrap_or_default() {
        [first] => first == "namespaces",
        [first, second] => first == "watch" && second == "namespaces",
        _ => false,
    }
}

/// Whether a decoded segment can name something, and is not another path.
fn is_name(segment: &str) -> bool {
    !segment.is_empty() && segment != "." && segment != ".." && !segment.contains(['/', '\0'])
}

/// Nothing where a text is not encoded as paths are.
fn decode(text: &str) -> Option<String> {
    let mut triples = text.split('%').skip(1);
    if !triples.all(|t| t.len() >= 2 && t.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit)) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}
