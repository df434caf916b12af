//! Which headers of a request go on to an extension API server, and which of its answer come back. Pure.
//!
//! What says who somebody is never passes: the client's own credentials stay here, and the identity headers are this
//! server's word alone.
//!
//! Sources: `SetAuthProxyHeaders` of client-go, `httputil.ReverseProxy` of Go, `upgradeaware.go` of apimachinery.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header, header::InvalidHeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::identity::Identity;

const REMOTE_USER: HeaderName = HeaderName::from_static("x-remote-user");
const REMOTE_GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const REMOTE_UID: HeaderName = HeaderName::from_static("x-remote-uid");
/// What the names of the other headers of an identity begin with.
const REMOTE_EXTRA: &str = "x-remote-extra-";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The path that the client asked for.
pub const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// Of one connection, not of the request (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
];
/// What extension servers have to say about other origins is not for this one.
const CROSS_ORIGIN: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];
/// A bearer token that a browser hides among the protocols of a WebSocket.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The protocol that a request wants to speak from then on: `websocket`, `SPDY/3.1`.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asked = asked.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asked).cloned()
}

/// Leaves out what belongs to the connection, and what `Connection` says belongs to it.
pub fn drop_hop_by_hop(headers: &mut HeaderMap) {
    // The length that counts was in the chunks; another reader may believe this one (RFC 9112, section 6.3).
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::UPGRADE);
}

/// Whether a header says who the client is, or whom it acts as. Servers that make variables of headers take `_` for
/// `-`.
fn is_credential(name: &str) -> bool {
    let name = name.replace('_', "-");
    matches!(name.as_str(), "authorization" | "cookie")
        || ["x-remote-", "impersonate-"].iter().any(|p| name.starts_with(p))
}

/// Leaves out what says who the client is, a token among the protocols of a WebSocket included.
pub fn drop_credentials(headers: &mut HeaderMap) {
    let credentials: Vec<HeaderName> = headers.keys().filter(|name| is_credential(name.as_str())).cloned().collect();
    for name in credentials {
        headers.remove(name);
    }
    let values: Vec<HeaderValue> = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    for value in values {
        let protocols = value.to_str().unwrap_or_default().split(',').map(str::trim);
        let kept: Vec<&str> = protocols.filter(|name| !name.is_empty() && !name.starts_with(TOKEN_PROTOCOL)).collect();
        // Made of parts of a valid value.
        if let Ok(kept) = HeaderValue::try_from(kept.join(", "))
            && !kept.is_empty()
        {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, kept);
        }
    }
}

/// Says who asks. Fails for a name that no header can have.
pub fn identify(headers: &mut HeaderMap, identity: &Identity) -> Result<(), InvalidHeaderValue> {
    headers.insert(REMOTE_USER, HeaderValue::from_bytes(identity.name.as_bytes())?);
    for group in &identity.groups {
        headers.append(REMOTE_GROUP, HeaderValue::from_bytes(group.as_bytes())?);
    }
    if !identity.uid.is_empty() {
        headers.insert(REMOTE_UID, HeaderValue::from_bytes(identity.uid.as_bytes())?);
    }
    for (key, values) in &identity.extra {
        let key = format!("{REMOTE_EXTRA}{}", utf8_percent_encode(key, NOT_IN_NAMES));
        // Every byte that a name cannot have is encoded.
        let Ok(name) = HeaderName::from_bytes(key.as_bytes()) else { continue };
        for value in values {
            headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes())?);
        }
    }
    Ok(())
}

/// What the name of a header cannot have, and `%`. Source: `headerKeyEscape` in `client-go/transport`.
const NOT_IN_NAMES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Turns the headers that a client sent into those that an extension API server gets, but for the host.
///
/// `peer` is the client's address, if it has one; `path` the path as it is sent on; `to` where it is sent, as text.
pub fn to_backend(
    headers: &mut HeaderMap,
    identity: &Identity,
    peer: Option<SocketAddr>,
    path: &str,
    to: &str,
) -> Result<(), InvalidHeaderValue> {
    let upgrade = upgrade(headers);
    drop_hop_by_hop(headers);
    drop_credentials(headers);
    identify(headers, identity)?;
    if let Some(peer) = peer {
        add_forwarded_for(headers, peer.ip())?;
    }
    match upgrade {
        Some(protocol) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, protocol);
        }
        None => {
            headers.insert(FORWARDED_URI, HeaderValue::try_from(path)?);
            headers.insert(FORWARDED_HOST, HeaderValue::try_from(to)?);
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
        }
    }
    Ok(())
}

/// Adds the client to those for whom the request is passed on.
pub fn add_forwarded_for(headers: &mut HeaderMap, peer: IpAddr) -> Result<(), InvalidHeaderValue> {
    let earlier = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let peer = peer.to_canonical().to_string();
    let all: Vec<&str> = earlier.chain([peer.as_str()]).collect();
    let all = HeaderValue::try_from(all.join(", "))?;
    headers.insert(FORWARDED_FOR, all);
    Ok(())
}

/// Turns the headers of an answer into those that the client gets. One that switches protocols keeps the names of them.
pub fn to_client(headers: &mut HeaderMap, switches: bool) {
    let upgrade = upgrade(headers).filter(|_| switches);
    drop_hop_by_hop(headers);
    for name in CROSS_ORIGIN {
        headers.remove(name);
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn jane() -> Identity {
        Identity { name: "jané".into(), groups: vec!["a".into(), "b".into()], ..Identity::default() }
    }

    fn sent(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = headers(pairs);
        let peer = Some("[::ffff:192.0.2.9]:1".parse().unwrap());
        to_backend(&mut headers, &jane(), peer, "/apis/g/v1/x", "10.0.0.1:443").unwrap();
        headers
    }

    #[test]
    fn a_pods_identity_goes_on_with_its_uid_and_what_its_token_says() {
        let extra = [("authentication.kubernetes.io/pod-name".to_owned(), vec!["web".to_owned(), "x".to_owned()])];
        let identity = Identity { name: "pod".into(), uid: "7".into(), extra: extra.into(), ..Identity::default() };
        let mut got = HeaderMap::new();
        identify(&mut got, &identity).unwrap();
        let name = "x-remote-extra-authentication.kubernetes.io%2fpod-name";
        assert_eq!(got, headers(&[("x-remote-user", "pod"), ("x-remote-uid", "7"), (name, "web"), (name, "x")]));
    }

    #[test]
    fn nobody_brings_their_own_identity_or_gives_their_credentials_away() {
        let got = sent(&[
            ("Authorization", "Bearer secret"),
            ("Cookie", "token=secret"),
            ("Proxy-Authorization", "Basic secret"),
            ("X-Remote-User", "admin"),
            ("X_Remote_User", "admin"),
            ("X-Remote-Group", "system:masters"),
            ("X-Remote-Uid", "1"),
            ("X-Remote-Extra-Scopes", "all"),
            ("Impersonate-User", "admin"),
            ("Impersonate-Extra-A", "b"),
            ("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io"),
            ("Accept", "application/json"),
        ]);
        let expected = [
            ("accept", "application/json"),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-uri", "/apis/g/v1/x"),
            ("x-forwarded-host", "10.0.0.1:443"),
            ("x-forwarded-proto", "https"),
        ];
        let mut expected = headers(&expected);
        expected.insert(REMOTE_USER, HeaderValue::from_bytes("jané".as_bytes()).unwrap());
        assert_eq!(got, expected);
    }

    #[test]
    fn what_belongs_to_a_connection_stays_on_it() {
        let got = sent(&[
            ("Connection", "keep-alive, X-Secret"),
            ("X-Secret", "1"),
            ("Keep-Alive", "5"),
            ("TE", "trailers"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "4"),
            ("Upgrade", "websocket"),
            ("X-Forwarded-For", "198.51.100.1"),
        ]);
        let left_out = ["connection", "x-secret", "keep-alive", "te", "transfer-encoding", "content-length", "upgrade"];
        for name in left_out {
            assert!(!got.contains_key(name), "{name}");
        }
        assert_eq!(got["x-forwarded-for"], "198.51.100.1, 192.0.2.9");
        let mut answer = headers(&[
            ("Connection", "close"),
            ("Access-Control-Allow-Origin", "*"),
            ("Upgrade", "h2c"),
            ("Content-Type", "a/b"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "50"),
        ]);
        to_client(&mut answer, false);
        assert_eq!(answer, headers(&[("content-type", "a/b")]));
    }

    #[test]
    fn a_connection_header_cannot_take_the_identity_away() {
        let got = sent(&[("Connection", "X-Remote-User, X-Remote-Group")]);
        assert_eq!(got.get_all("x-remote-group").iter().count(), 2);
        assert!(got.contains_key("x-remote-user"));
    }

    #[test]
    fn an_upgrade_names_its_protocol_and_nothing_else_of_the_connection() {
        let got = sent(&[("Connection", "keep-alive, Upgrade"), ("Upgrade", "SPDY/3.1"), ("Keep-Alive", "5")]);
        assert_eq!((&got["connection"], &got["upgrade"]), (&"Upgrade".parse().unwrap(), &"SPDY/3.1".parse().unwrap()));
        assert!(!got.contains_key("keep-alive") && !got.contains_key("x-forwarded-uri"));
        assert_eq!(upgrade(&headers(&[("upgrade", "websocket")])), None, "as long as the connection does not say so");
    }

    #[test]
    fn a_name_that_breaks_lines_is_refused() {
        let evil = Identity { name: "a\r\nX-Remote-Group: system:masters".into(), ..Identity::default() };
        assert!(identify(&mut HeaderMap::new(), &evil).is_err());
    }
}
