//! Which headers a proxied server gets, and which of its answer come back. Pure.
//!
//! What the client shows to this server stays here; cookies are the proxied server's own. Sources: `upgradeaware.go`
//! and `transport.go` of apimachinery, `httputil.ReverseProxy` of Go.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, header};

use super::links::Links;
use crate::proxy_headers::{FORWARDED_URI, add_forwarded_for, drop_credentials, drop_hop_by_hop, upgrade};

/// Turns the headers that a client sent into those that the server gets. `path` is that of the request, as it was sent.
pub fn to_server(headers: &mut HeaderMap, peer: Option<SocketAddr>, path: &str) {
    let protocol = upgrade(headers);
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // One field in HTTP/1.1, several in HTTP/2 (RFC 9113, section 8.2.3).
    let cookies = HeaderValue::from_bytes(&cookies.join(&b"; "[..])).ok().filter(|all| !all.is_empty());
    drop_hop_by_hop(headers);
    drop_credentials(headers);
    headers.extend(cookies.map(|all| (header::COOKIE, all)));
    // Pages are read on their way back. An address is a header's value always.
    headers.remove(header::ACCEPT_ENCODING);
    if let Some(Err(error)) = peer.map(|peer| add_forwarded_for(headers, peer.ip())) {
        tracing::debug!(%error, "a client's address is not passed on");
    }
    match protocol {
        Some(protocol) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, protocol);
        }
        None => {
            headers.extend(HeaderValue::try_from(path).ok().map(|path| (FORWARDED_URI, path)));
        }
    }
}

/// Has a redirect lead through the proxy, if it leads to the server.
pub fn redirect(headers: &mut HeaderMap, links: &Links) {
    let to = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let rewritten = to.and_then(|to| links.rewritten(to)).and_then(|to| HeaderValue::try_from(to).ok());
    if let Some(rewritten) = rewritten {
        headers.insert(header::LOCATION, rewritten);
    }
}

/// Whether an answer is an HTML page that can be read as it comes.
pub fn is_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html") && matches!(text(header::CONTENT_ENCODING), "" | "identity")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_server_gets_cookies_and_no_credentials_of_the_cluster() {
        let mut got = headers(&[
            ("authorization", "Bearer secret"),
            ("impersonate-user", "joe"),
            ("x-remote-user", "joe"),
            ("cookie", "a=b"),
            ("cookie", "c=d"),
            ("accept", "text/html"),
            ("accept-encoding", "gzip"),
            ("connection", "close"),
        ]);
        to_server(&mut got, Some("192.0.2.1:5".parse().unwrap()), "/api/v1/pods/p/proxy/x");
        let expected = [
            ("cookie", "a=b; c=d"),
            ("accept", "text/html"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-uri", "/api/v1/pods/p/proxy/x"),
        ];
        assert_eq!(got, headers(&expected));
    }

    #[test]
    fn another_protocol_is_asked_for_as_the_client_asked() {
        let mut got = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        to_server(&mut got, None, "/x");
        assert_eq!(got, headers(&[("connection", "Upgrade"), ("upgrade", "websocket")]));
    }

    #[test]
    fn pages_are_told_from_other_answers() {
        assert!(is_page(&headers(&[("content-type", "text/html; charset=utf-8")])));
        assert!(!is_page(&headers(&[("content-type", "text/plain")])));
        assert!(!is_page(&headers(&[("content-type", "text/html"), ("content-encoding", "gzip")])));
        assert!(!is_page(&headers(&[])));
    }
}
