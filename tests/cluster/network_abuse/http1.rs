//! HTTP/1.1 byte by byte: paths that could be read in two ways, lengths that could, and heads without end.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::victim::{MARK, Victim, Who};
use crate::{
    control_alone::expect,
    kit::{Result, cluster::PATIENCE},
};

/// All that comes until the server closes the connection.
async fn exchange(victim: &Victim, who: Who, bytes: &[u8]) -> Result<String> {
    let mut stream = victim.connect(who, "http/1.1").await?;
    // The server may have closed already: what it said is what counts.
    let sent = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let shown = String::from_utf8_lossy(bytes.get(..bytes.len().min(200)).unwrap_or_default()).into_owned();
    let read = read.map_err(|_| format!("the connection stays open after {shown:?}"))?;
    if answer.is_empty()
        && let Err(error) = sent.and(read.map(drop))
    {
        // A reset is an answer, too.
        return Ok(format!("closed: {error}"));
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The status codes of the answers in a text, in order.
fn codes(answers: &str) -> Vec<u16> {
    answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}

/// A request that asks for the end of the connection.
fn last(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: server\r\n{more}connection: close\r\n\r\n")
}

const MARKED: &str = "/api/v1/namespaces/default/secrets/marked";

/// Targets that some reader could take for the Secret or for the metrics, and another for something that joe may.
const ODD_TARGETS: &[&str] = &[
    MARKED,
    "//api/v1/namespaces/default/secrets/marked",
    "/api//v1/namespaces/default/secrets/marked",
    "/api/v1//namespaces/default/secrets/marked",
    "/api/v1/namespaces//default/secrets/marked",
    "/api/v1/namespaces/own/../default/secrets/marked",
    "/api/v1/namespaces/own/configmaps/../../default/secrets/marked",
    "/api/v1/namespaces/own/configmaps/mine/../../../default/secrets/marked",
    "/api/v1/namespaces/own/configmaps/mine/proxy/../../../../default/secrets/marked",
    "/api/v1/namespaces/own%2F..%2Fdefault/secrets/marked",
    "/api/v1/namespaces/own/configmaps/..%2f..%2f..%2fdefault%2fsecrets%2fmarked",
    "/api/v1/namespaces/own/configmaps/%2e%2e/%2e%2e/default/secrets/marked",
    "/api/v1/namespaces/default%2Fsecrets/marked",
    "/api/v1/namespaces/default/secrets%2Fmarked",
    "/api/v1/namespaces/own/configmaps/mine%00/../../default/secrets/marked",
    "/%61pi/v1/namespaces/default/secrets/marked",
    "/%2Fapi/v1/namespaces/default/secrets/marked",
    "/api/v1/namespaces/default/%73ecrets/marked",
    "/api/v1/namespaces/default/secrets/%6darked",
    "/API/v1/namespaces/default/secrets/marked",
    "/api/v1/namespaces/default/Secrets/marked",
    "/api/v1/namespaces/default/secrets/marked/",
    "/api/v1/namespaces/default/secrets/marked//",
    "/api/v1/namespaces/default/secrets/marked;/healthz",
    "/api/v1/namespaces/default/secrets/marked?namespace=own&resource=configmaps",
    "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name%3Dmarked",
    "/api/v1/secrets",
    "/api/v1/watch/namespaces/default/secrets/marked",
    "/api/v1/watch/secrets",
    "/api/v1/proxy/namespaces/default/secrets/marked",
    "/apis//v1/namespaces/default/secrets/marked",
    "/apis/v1/namespaces/default/secrets/marked",
    "/healthz/../api/v1/namespaces/default/secrets/marked",
    "/healthz/..;/api/v1/namespaces/default/secrets/marked",
    "/healthz/%2e%2e/api/v1/namespaces/default/secrets/marked",
    "/healthz/..%2fapi/v1/namespaces/default/secrets/marked",
    "/healthz//api/v1/namespaces/default/secrets/marked",
    "/healthz/../metrics",
    "/healthz/%2e%2e/metrics",
    "/healthz/..%2fmetrics",
    "/metrics",
    "//metrics",
    "/metrics/",
    "/./metrics",
    "http://server/api/v1/namespaces/default/secrets/marked",
    "https://127.0.0.1/healthz/../metrics",
    "http://server//api/v1/namespaces/default/secrets/marked",
    "http://server@/api/v1/namespaces/default/secrets/marked",
    "\\api\\v1\\namespaces\\default\\secrets\\marked",
    "api/v1/namespaces/default/secrets/marked",
    "*",
    "server:443",
];

/// Whatever a target looks like, joe sees neither the Secret nor the metrics; nor does a stranger.
pub async fn odd_targets(victim: Victim) -> Result {
    let seen = exchange(&victim, Who::Joe, last("/api/v1/namespaces/own/configmaps/mine", "").as_bytes()).await?;
    if codes(&seen) != [200] {
        return Err(format!("joe may not even what he may: {seen}").into());
    }
    for who in [Who::Joe, Who::Stranger] {
        for target in ODD_TARGETS {
            let answer = exchange(&victim, who, last(target, "").as_bytes()).await?;
            let shown = answer.contains(MARK) || answer.contains("fairlead_connections");
            // `/healthz` and what is below it is joe's to ask; there is nothing below it under these names.
            if shown || codes(&answer).iter().any(|code| *code < 400) {
                return Err(format!("{who:?} GET {target}: {answer}").into());
            }
        }
    }
    Ok(())
}

/// Headers with which proxies say who asks, and what, are not listened to.
pub async fn claims(victim: Victim) -> Result {
    for header in [
        "x-remote-user: admin\r\nx-remote-group: system:masters\r\n",
        "x-remote_user: admin\r\nx-remote_group: system:masters\r\n",
        "x-forwarded-for: 127.0.0.1\r\nx-forwarded-user: admin\r\n",
        "x-original-url: /healthz\r\nx-rewrite-url: /healthz\r\n",
        "impersonate-user: kubernetes-admin\r\nimpersonate-group: system:masters\r\n",
        "impersonate-group: system:masters\r\n",
        "impersonate-extra-a: b\r\n",
        "authorization: Basic YWRtaW46YWRtaW4=\r\n",
        "authorization: Bearer \r\n",
        "ssl-client-subject-dn: O=system:masters,CN=admin\r\n",
    ] {
        for who in [Who::Joe, Who::Stranger] {
            let answer = exchange(&victim, who, last(MARKED, header).as_bytes()).await?;
            if answer.contains(MARK) || codes(&answer).iter().any(|code| *code < 400) {
                return Err(format!("{who:?} with {header:?}: {answer}").into());
            }
        }
    }
    let method = "x-http-method-override: DELETE\r\nx-http-method: DELETE\r\nx-method-override: DELETE\r\n";
    let path = "/api/v1/namespaces/own/configmaps/mine?_method=DELETE";
    let answer = exchange(&victim, Who::Joe, last(path, method).as_bytes()).await?;
    if codes(&answer) != [200] {
        return Err(format!("a method in a header: {answer}").into());
    }
    expect(&victim.admin, 200, "GET", "/api/v1/namespaces/own/configmaps/mine", None).await.map(drop)
}

/// A body that hides a request of its own from whoever reads the other length.
const HIDDEN: &str = "GET /api/v1/namespaces/default/secrets/marked HTTP/1.1\r\nhost: server\r\n\r\n";

/// A POST to something that joe may write, with these headers about its length.
fn post(version: &str, lengths: &str, body: &str) -> String {
    format!(
        "POST /api/v1/namespaces/own/configmaps HTTP/{version}\r\nhost: server\r\ncontent-type: \
         application/json\r\n{lengths}\r\n{body}"
    )
}

/// Each is refused with 400 at most once, and the connection ends: nothing behind it is read as a request.
pub async fn ambiguous_lengths(victim: Victim) -> Result {
    let body = "{}";
    for lengths in [
        "content-length: 2\r\ncontent-length: 80\r\n",
        "content-length: 2, 80\r\n",
        "content-length: +2\r\n",
        "content-length: -2\r\n",
        "content-length: 0x2\r\n",
        "content-length: 2 2\r\n",
        "content-length: 2a\r\n",
        "content-length: \r\n",
        "content-length: 18446744073709551618\r\n",
        "content-length : 2\r\n",
        " content-length: 2\r\n",
        "content-length\r\n",
        "content-length: 2\r\n 0\r\n",
        "content-length:\r\n 2\r\n",
        "content-\0length: 2\r\n",
        "x: a\rcontent-length: 2\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: \u{b}chunked\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding:\r\n chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: chunked\0\r\n",
    ] {
        let answer = exchange(&victim, Who::Joe, format!("{}{HIDDEN}", post("1.1", lengths, body)).as_bytes()).await?;
        let codes = codes(&answer);
        if codes.len() > 1 || codes.iter().any(|code| *code != 400) || answer.contains(MARK) {
            return Err(format!("{lengths:?}: {answer}").into());
        }
    }
    // HTTP/1.0 knows no chunks (RFC 9112, section 6.1).
    let chunked = "transfer-encoding: chunked\r\n";
    let answer = exchange(&victim, Who::Joe, post("1.0", chunked, &format!("0\r\n\r\n{HIDDEN}")).as_bytes()).await?;
    if answer.matches("HTTP/1.").count() > 1 || !answer.contains(" 400 ") {
        return Err(format!("chunks over HTTP/1.0: {answer}").into());
    }
    // Of both lengths the chunks count (RFC 9112, section 6.3); what follows them is no part of an answer to come.
    for lengths in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\ncontent-length: 5\r\n",
    ] {
        let bytes = post("1.1", lengths, &format!("0\r\n\r\n{}", last(MARKED, "")));
        let answer = exchange(&victim, Who::Joe, bytes.as_bytes()).await?;
        let refused = matches!(codes(&answer).as_slice(), [400 | 415 | 422] | [400 | 415 | 422, 403]);
        if !refused || answer.contains(MARK) {
            return Err(format!("{lengths:?}: {answer}").into());
        }
    }
    expect(&victim.admin, 200, "GET", "/readyz", None).await.map(drop)
}

/// Chunks that could be read in two ways end the connection, and extensions and trailers are no way to send without
/// end.
pub async fn chunks(victim: Victim) -> Result {
    let chunked = "transfer-encoding: chunked\r\n";
    let long = "x".repeat(1 << 20);
    for body in [
        format!("2\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
        format!("0x2\r\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
        format!("-2\r\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
        format!("+2\r\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
        format!("2\r\n{{}}xx0\r\n\r\n{HIDDEN}"),
        format!("2;a\n=b\r\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
        format!("10000000000000002\r\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
        format!("2;{long}\r\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
        format!("2\r\n{{}}\r\n0\r\n{}\r\n{HIDDEN}", format!("x: {}\r\n", &long[..1000]).repeat(1000)),
        "1;extension=long\r\nx\r\n".repeat(100_000),
    ] {
        let answer = exchange(&victim, Who::Joe, post("1.1", chunked, &body).as_bytes()).await?;
        // Refused, or the connection was closed in the middle of the body.
        if codes(&answer).len() > 1 || codes(&answer).iter().any(|code| *code < 400) || answer.contains(MARK) {
            return Err(format!("{:?}: {answer}", &body[..body.len().min(100)]).into());
        }
    }
    let good = format!("2;a=b\r\n{{}}\r\n0\r\nx: y\r\n\r\n{}", last("/healthz", ""));
    let answer = exchange(&victim, Who::Joe, post("1.1", chunked, &good).as_bytes()).await?;
    match codes(&answer).as_slice() {
        [400 | 422, 200] => Ok(()),
        _ => Err(format!("a good body, and a second request: {answer}").into()),
    }
}

/// Heads that have no end are refused before they are read to it.
pub async fn oversized_heads(victim: Victim) -> Result {
    let long = "x".repeat(1 << 20);
    for head in [
        last(&format!("/healthz?{long}"), ""),
        last(&format!("/{long}"), ""),
        last("/healthz", &format!("long: {long}\r\n")),
        last("/healthz", &format!("{long}: long\r\n")),
        last("/healthz", &"a: b\r\n".repeat(100_000)),
        format!("{long} / HTTP/1.1\r\n\r\n"),
    ] {
        let answer = exchange(&victim, Who::Stranger, head.as_bytes()).await?;
        if codes(&answer).len() > 1 || codes(&answer).iter().any(|code| !matches!(code, 400 | 414 | 431)) {
            return Err(format!("{:?}: {answer}", &head[..100]).into());
        }
    }
    expect(&victim.admin, 200, "GET", "/readyz", None).await.map(drop)
}
