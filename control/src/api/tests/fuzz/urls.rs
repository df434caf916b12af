//! Paths, queries and the selectors in them.

use http::Method;
use proptest::{collection::vec, prelude::*, sample::select};

use super::{Target, request};
use crate::fuzzing::fuzz;

#[test]
fn a_selector_selects_or_is_refused() {
    let target = Target::new();
    const LABELS: &[&str] = &[
        "app",
        "web",
        "=",
        "==",
        "!=",
        ",",
        " in ",
        " notin ",
        "(",
        ")",
        "!",
        ">",
        "<",
        "1",
        "99999999999999999999",
        "a/b",
        " ",
        "-",
        "\u{e9}",
    ];
    const FIELDS: &[&str] = &[
        "metadata.name",
        "metadata.namespace",
        "spec.nodeName",
        "status.phase",
        "involvedObject.name",
        "=",
        "==",
        "!=",
        ",",
        "\\,",
        "\\=",
        "\\\\",
        "\\",
        "web",
        "x",
        " ",
        "spec.unknown",
    ];
    let path = select(&["pods", "configmaps", "events", "services"][..]);
    let selector = prop_oneof![
        vec(select(LABELS), 0..10).prop_map(|parts| ("labelSelector", parts.concat())),
        vec(select(FIELDS), 0..10).prop_map(|parts| ("fieldSelector", parts.concat())),
    ];
    fuzz((path, selector), |(resource, (option, text))| {
        let uri = format!("/api/v1/namespaces/default/{resource}?{option}={}", encoded(&text));
        let (code, _) = target.check(&request(Method::GET, &uri, "application/json", ""))?;
        prop_assert!(code == 200 || code == 400, "{uri}: {code}");
        Ok(())
    });
}

#[test]
fn a_query_is_read_or_refused() {
    let target = Target::new();
    const OPTIONS: &[&str] = &[
        "watch",
        "allowWatchBookmarks",
        "sendInitialEvents",
        "resourceVersion",
        "resourceVersionMatch",
        "limit",
        "continue",
        "timeoutSeconds",
        "dryRun",
        "fieldValidation",
        "fieldManager",
        "includeObject",
        "gracePeriodSeconds",
        "propagationPolicy",
        "orphanDependents",
        "pretty",
        "force",
        "labelSelector",
    ];
    const VALUES: &[&str] = &[
        "",
        "0",
        "1",
        "-1",
        "true",
        "false",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775807",
        "1e3",
        "Exact",
        "NotOlderThan",
        "All",
        "Strict",
        "Background",
        "Foreground",
        "Orphan",
        "Object",
        "e30",
        "bnVsbA",
    ];
    let value = prop_oneof![4 => select(VALUES).prop_map(str::to_owned), 1 => "\\PC{0,10}"];
    let path =
        select(&["/api/v1/pods", "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/pods/web"][..]);
    let method = select(&[Method::GET, Method::GET, Method::DELETE, Method::POST][..]);
    fuzz((method, any::<bool>(), path, vec((select(OPTIONS), value), 0..5)), |(method, watch, path, options)| {
        let mut query: Vec<String> = options.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        match method {
            Method::GET if watch => query.push("watch=true".into()),
            Method::GET => {}
            _ => query.push("dryRun=All".into()),
        }
        target.check(&request(method, &format!("{path}?{}", query.join("&")), "application/json", "")).map(drop)
    });
}

#[test]
fn a_path_leads_somewhere_or_nowhere() {
    let target = Target::new();
    const PARTS: &[&str] = &[
        "api",
        "apis",
        "v1",
        "apps",
        "namespaces",
        "default",
        "pods",
        "deployments",
        "web",
        "status",
        "scale",
        "log",
        "exec",
        "binding",
        "eviction",
        "finalize",
        "proxy",
        "token",
        "ephemeralcontainers",
        "watch",
        "openapi",
        "v2",
        "v3",
        "version",
        "",
        "%2F",
        "%00",
        "%ff",
        "..",
        ".",
        "healthz",
        "livez",
        "readyz",
        "metrics",
        "nodes",
        "tokenreviews",
        "%",
    ];
    let method = select(&[Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE, Method::HEAD][..]);
    let body = select(&["", "{}", "[]", "null", "{\"metadata\":null}", "{\"kind\":\"Status\"}"][..]);
    fuzz((method, vec(select(PARTS), 0..8), body), |(method, parts, body)| {
        let uri = format!("/{}?dryRun=All&timeoutSeconds=1", parts.join("/"));
        if uri.parse::<http::Uri>().is_err() || uri.starts_with("//") {
            return Ok(());
        }
        let sent = request(method.clone(), &uri, "application/json", body);
        if method == Method::HEAD {
            let (code, _) = target.answer(&sent);
            prop_assert!(code < 500, "{sent:?}: {code}");
            return Ok(());
        }
        target.check(&sent).map(drop)
    });
}

/// Percent-encoded, every byte but letters and digits.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
