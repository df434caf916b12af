//! URLs: `url("https://example.com:80/path?query=val")`.

use std::rc::Rc;

use crate::cel::{
    eval::{Answer, Run, failure, traversal},
    value::{Map, Opaque, Value},
};

/// The parts of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    /// With the port.
    host: String,
    hostname: String,
    port: String,
    path: String,
    query: String,
}

impl Url {
    /// Reads an absolute URI or an absolute path, as Go's `url.ParseRequestURI` does.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.bytes().any(|b| b <= 0x20 || b == 0x7f) {
            return None;
        }
        let (scheme, rest) = match text.starts_with('/') {
            true => ("", text),
            false => {
                let (scheme, rest) = text.split_once(':')?;
                let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
                let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(fits);
                (is_scheme.then_some(scheme)?, rest)
            }
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
            Some(rest) => {
                let at = rest.find('/').unwrap_or(rest.len());
                (&rest[..at], &rest[at..])
            }
            None if scheme.is_empty() || rest.starts_with('/') => ("", rest),
            // Opaque: `mailto:x`
            None => ("", ""),
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let (hostname, port) = match host.strip_prefix('[') {
            Some(inner) => {
                let (address, rest) = inner.split_once(']')?;
                (address, rest.strip_prefix(':').unwrap_or_default())
            }
            None => host.rsplit_once(':').unwrap_or((host, "")),
        };
        if !port.bytes().all(|b| b.is_ascii_digit()) || hostname.contains(['[', ']', '<', '>', '"']) {
            return None;
        }
        let own = str::to_owned;
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            host: own(host),
            hostname: own(hostname),
            port: own(port),
            path: escaped(path),
            query: own(query),
        })
    }

    fn queries<'v>(&self) -> Value<'v> {
        let mut entries: Vec<(String, Vec<Value<'v>>)> = Vec::new();
        for (key, value) in form_urlencoded::parse(self.query.as_bytes()) {
            match entries.iter_mut().find(|(known, _)| *known == key) {
                Some((_, values)) => values.push(Value::text(&*value)),
                None => entries.push((key.into_owned(), vec![Value::text(&*value)])),
            }
        }
        let entries = entries.into_iter().map(|(key, values)| (Value::text(key), Value::list(values)));
        Value::Map(Map::Made(Rc::new(entries.collect())))
    }
}

/// What may not stand in a path is escaped.
fn escaped(path: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'<')
        .add(b'>')
        .add(b'`')
        .add(b'{')
        .add(b'}')
        .add(b'^')
        .add(b'|')
        .add(b'\\');
    percent_encoding::utf8_percent_encode(path, KEPT).to_string()
}

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    let value = match (name, values) {
        ("url", [Value::String(text)]) => {
            let found = Url::parse(text).map(|found| Value::Opaque(Opaque::Url(Rc::new(found))));
            let found = found.ok_or_else(|| {
                failure(format!(
                    "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
                ))
            });
            return Some(run.charge(traversal(text.len() as u64)).and(found));
        }
        ("isURL", [Value::String(text)]) => {
            let is = Url::parse(text).is_some();
            return Some(run.charge(traversal(text.len() as u64)).map(|()| Value::Bool(is)));
        }
        ("getScheme", [Value::Opaque(Opaque::Url(url))]) => Value::text(url.scheme.as_str()),
        ("getHost", [Value::Opaque(Opaque::Url(url))]) => Value::text(url.host.as_str()),
        ("getHostname", [Value::Opaque(Opaque::Url(url))]) => Value::text(url.hostname.as_str()),
        ("getPort", [Value::Opaque(Opaque::Url(url))]) => Value::text(url.port.as_str()),
        ("getEscapedPath", [Value::Opaque(Opaque::Url(url))]) => Value::text(url.path.as_str()),
        ("getQuery", [Value::Opaque(Opaque::Url(url))]) => {
            let cost = traversal(url.query.len() as u64).max(1);
            return Some(run.charge(cost).map(|()| url.queries()));
        }
        _ => return None,
    };
    Some(run.charge(1).map(|()| value))
}
