//! Requests read as a whole: method, path and query, as `RequestInfoFactory` and the option decoders of
//! `k8s.io/apiserver` read them.

use super::{path::RequestPath, *};

/// What a request with this method and URI is read as.
pub fn parse(method: &str, uri: &str) -> Result<RequestInfo, Status> {
    let (parts, ()) = http::Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
    RequestInfo::of(&parts)
}

/// The same, of a request that is well-formed.
pub fn info(method: &str, uri: &str) -> RequestInfo {
    parse(method, uri).unwrap_or_else(|status| panic!("{method} {uri}: {status}"))
}

fn resource(method: &str, uri: &str) -> (Verb, ResourcePath) {
    let info = info(method, uri);
    match info.path {
        RequestPath::Resource(path) => (info.verb, path),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_requests_that_say_so_past_the_wire_come_from_a_client_in_process() {
    let mut request = http::Request::get("/api/v1/pods?watch=true").body(()).unwrap();
    assert!(!RequestInfo::of(&request.clone().into_parts().0).unwrap().in_process);
    request.extensions_mut().insert(InProcess);
    assert!(RequestInfo::of(&request.into_parts().0).unwrap().in_process);
}

#[test]
fn one_request_is_for_one_host() {
    let with = |hosts: &[&str]| {
        let all = hosts.iter().fold(http::Request::get("/version"), |request, host| request.header("host", *host));
        RequestInfo::of(&all.body(()).unwrap().into_parts().0).map(drop).map_err(|status| (status.code, status.message))
    };
    assert_eq!(with(&["a"]), Ok(()));
    assert_eq!(with(&["a", "b"]), Err((400, "too many Host headers".to_owned())));
    assert_eq!(with(&["a", "a"]).unwrap_err().0, 400);
}

#[test]
fn paths_and_methods_become_verbs_and_names() {
    use Verb::*;
    let deployments = "/apis/apps/v1/namespaces/a/deployments";
    let cases = [
        ("GET", "/api/v1/pods", List, "", "", "pods", "", ""),
        ("GET", "/api/v1/namespaces/a/pods", List, "", "a", "pods", "", ""),
        ("GET", "/api/v1/namespaces/a/pods/b", Get, "", "a", "pods", "", "b"),
        ("PATCH", "/api/v1/namespaces/a/pods/b/status", Patch, "", "a", "pods", "status", "b"),
        ("GET", "/api/v1/namespaces/a/pods/b/log?follow=true", Get, "", "a", "pods", "log", "b"),
        ("GET", "/api/v1/namespaces/a", Get, "", "", "namespaces", "", "a"),
        ("PUT", "/api/v1/namespaces/a/finalize", Update, "", "", "namespaces", "finalize", "a"),
        ("GET", "/api/v1/namespaces", List, "", "", "namespaces", "", ""),
        ("GET", "/api/v1/nodes/n/proxy/pods/x", Get, "", "", "nodes", "proxy", "n"),
        ("DELETE", deployments, DeleteCollection, "apps", "a", "deployments", "", ""),
        ("DELETE", "/apis/apps/v1/namespaces/a/deployments/d", Delete, "apps", "a", "deployments", "", "d"),
        ("GET", "/api/v1/pods?watch=true", Watch, "", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=1", Watch, "", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=0", List, "", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=0&watch=1", List, "", "", "pods", "", ""),
        ("GET", "/api/v1/watch/namespaces/a/pods", Watch, "", "a", "pods", "", ""),
        ("GET", "/api/v1/watch/namespaces/a/pods/b", Watch, "", "a", "pods", "", "b"),
        ("GET", "/api/v1/nodes/n%2D1", Get, "", "", "nodes", "", "n-1"),
        ("OPTIONS", "/api/v1/nodes/n1", Other, "", "", "nodes", "", "n1"),
    ];
    for (method, uri, verb, group, namespace, plural, subresource, name) in cases {
        let (found, path) = resource(method, uri);
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        assert_eq!(found, verb, "{method} {uri}");
        assert_eq!(
            (path.group.as_str(), text(&path.namespace), path.resource.as_str(), text(&path.subresource)),
            (group, namespace.to_owned(), plural, subresource.to_owned()),
            "{method} {uri}"
        );
        assert_eq!(text(&path.name), name, "{method} {uri}");
    }
}

#[test]
fn the_path_for_a_proxy_is_left_as_it_was_sent() {
    let rest = |uri: &str| resource("GET", uri).1.rest;
    assert_eq!(rest("/api/v1/nodes/n/proxy"), "");
    assert_eq!(rest("/api/v1/nodes/n/proxy/"), "/");
    assert_eq!(rest("/api/v1/nodes/n/proxy/a%2Fb//c/?x=1"), "/a%2Fb//c/");
    assert_eq!(rest("/api/v1/namespaces/a/services/s/proxy/x/.."), "/x/..");
}

#[test]
fn a_path_that_cannot_be_decoded_is_not_found() {
    for path in ["/api/v1/namespaces/a/pods/%zz", "/api/v1/namespaces//pods/%f", "/api/v1/namespaces/a/pods/%ff"] {
        assert_eq!(parse("GET", path).map(|info| info.path).unwrap_err().code, 404, "{path}");
    }
}

#[test]
fn a_path_with_an_unusable_part_is_read_as_kubernetes_reads_it_and_serves_nothing() {
    use Verb::*;
    for (method, uri, verb, group, namespace, resource, subresource, name) in [
        ("GET", "/api/v1/namespaces/a//pods", Get, "", "a", "", "", "pods"),
        ("GET", "/api/v1//pods", Get, "", "", "", "", "pods"),
        ("GET", "//api/v1/pods", List, "", "", "pods", "", ""),
        ("GET", "/api//pods", List, "", "", "pods", "", ""),
        ("GET", "/api//v1/pods", Get, "", "", "v1", "", "pods"),
        ("GET", "/apis//apps/v1/deployments", Get, "", "", "v1", "", "deployments"),
        ("GET", "/apis/apps//v1/deployments", Get, "apps", "", "v1", "", "deployments"),
        ("GET", "/api/v1/namespaces/a/pods//x", List, "", "a", "pods", "x", ""),
        ("GET", "/api/v1/namespaces/a/pods//x?watch=1", Watch, "", "a", "pods", "x", ""),
        ("DELETE", "/api/v1/namespaces/a/pods//x", DeleteCollection, "", "a", "pods", "x", ""),
        ("PUT", "/api/v1/namespaces/a/pods//x", Update, "", "a", "pods", "x", ""),
        ("GET", "/api/v1/namespaces/a/pods/x//status", Get, "", "a", "pods", "", "x"),
        ("GET", "/api/v1/namespaces///pods", Get, "", "", "", "", "pods"),
        ("GET", "/api/v1/watch//pods", Watch, "", "", "", "", "pods"),
        ("GET", "/api/v1/watch/namespaces/a/pods/p/proxy/x", Watch, "", "a", "pods", "proxy", "p"),
        ("GET", "/api/v1//namespaces/default", Get, "", "", "", "default", "namespaces"),
        ("GET", "/api/v1/namespaces/a/../services", Get, "", "a", "..", "", "services"),
        ("GET", "/api/v1/namespaces/a/pods/%2e%2e", Get, "", "a", "pods", "", ".."),
        ("GET", "/api/v1/namespaces/a/pods/b%2Fc", Get, "", "a", "pods", "c", "b"),
        ("GET", "/api/v1/namespaces/a/pods/%00", Get, "", "a", "pods", "", "\0"),
        ("GET", "/api/v1/nodes//n/a/b/c", List, "", "", "nodes", "n", ""),
    ] {
        let info = info(method, uri);
        let RequestPath::Unserved(path) = &info.path else { panic!("{uri}: {:?}", info.path) };
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        assert_eq!(info.verb, verb, "{method} {uri}");
        let read = (path.group.as_str(), text(&path.namespace), path.resource.as_str(), text(&path.subresource));
        assert_eq!(read, (group, namespace.to_owned(), resource, subresource.to_owned()), "{method} {uri}");
        assert_eq!(text(&path.name), name, "{method} {uri}");
        assert!(info.resource().is_none(), "{uri}");
    }
}

#[test]
fn an_empty_namespace_is_said_to_be_one() {
    for (uri, verb, name) in [
        ("/api/v1/namespaces//pods", Verb::List, None),
        ("/api/v1/namespaces//pods//", Verb::List, None),
        ("/api/v1/watch/namespaces//pods", Verb::Watch, None),
        ("/apis/apps/v1/namespaces//deployments/d/scale", Verb::Get, Some("d")),
    ] {
        let (found, path) = resource("GET", uri);
        assert_eq!((found, path.name.as_deref()), (verb, name), "{uri}");
        assert!(path.empty_namespace && path.namespace.is_none(), "{uri}");
    }
    assert!(!resource("GET", "/api/v1/namespaces//").1.empty_namespace, "that of all namespaces");
}

#[test]
fn slashes_at_the_end_of_a_resource_path_say_nothing() {
    for path in [
        "/api/v1/pods",
        "/api/v1/namespaces",
        "/api/v1/namespaces/a",
        "/api/v1/namespaces/a/status",
        "/api/v1/namespaces/a/pods",
        "/api/v1/namespaces/a/pods/b",
        "/api/v1/namespaces/a/pods/b/log",
        "/api/v1/watch/namespaces/a/pods",
        "/apis/apps/v1/namespaces/a/deployments",
    ] {
        for method in ["GET", "DELETE", "POST", "PUT", "PATCH"] {
            let Ok(without) = parse(method, path) else { continue };
            for end in ["/", "//"] {
                let (verb, with) = resource(method, &format!("{path}{end}"));
                assert_eq!(verb, without.verb, "{method} {path}{end}");
                let with = ResourcePath { rest: String::new(), ..with };
                assert_eq!(Some(&with), without.resource(), "{method} {path}{end}");
            }
        }
    }
    assert_eq!(resource("DELETE", "/api/v1/namespaces/a/pods/").0, Verb::DeleteCollection);
}

#[test]
fn other_paths_are_authorised_as_they_were_sent() {
    for path in ["/", "//", "/api/", "/apis//", "/version/", "/healthz/", "//healthz", "/apis//v1", "/livez//ping"] {
        match info("GET", path).path {
            RequestPath::Other(other) => assert_eq!(other.as_str(), path),
            resource => panic!("{resource:?}"),
        }
    }
}

#[test]
fn discovery_is_no_resource() {
    for path in ["/api", "/apis", "/api/v1", "/api/v1/", "/apis/apps/v1", "/apis/apps/v1//", "/version", "/", "//"] {
        assert!(info("GET", path).resource().is_none(), "{path}");
    }
}

#[test]
fn a_request_has_all_its_parameters_and_a_watch_keeps_none() {
    let command = format!("/api/v1/namespaces/n/pods/p/exec?{}", "command=a&".repeat(2000));
    assert_eq!(info("POST", &command).query.parameters.len(), 2000);
    let watch = info("GET", &format!("/api/v1/pods?watch=1&labelSelector=a{}", "&b=c".repeat(2000)));
    let kept = watch.without_parameters();
    assert!(watch.query.parameter("b").is_some() && kept.query.parameter("b").is_none());
    assert!(kept.query.watch && kept.query.label_selector == watch.query.label_selector);
}

#[test]
fn numbers_that_make_no_sense_are_refused_or_mean_the_default() {
    let query = |text: &str| parse("GET", &format!("/api/v1/pods?{text}")).map(|info| info.query);
    assert_eq!(query("timeoutSeconds=18446744073709551615").unwrap().malformed.expect("refused").code, 400);
    assert_eq!(query("timeoutSeconds=9223372036854775807").unwrap().timeout_seconds, Some(i64::MAX as u64));
    assert_eq!(query("timeoutSeconds=0").unwrap().timeout_seconds, None);
    assert_eq!(query("timeoutSeconds=-5").unwrap().timeout_seconds, None);
    assert_eq!(query("limit=-1").unwrap().limit, None);
    assert_eq!(query("limit=x").unwrap().malformed.expect("refused").code, 400);
    assert_eq!(query("resourceVersion=-1").unwrap().resource_version, Some(query::Version::Malformed));
}

#[test]
fn what_asks_for_some_dry_run_never_writes() {
    let query = |text: &str| parse("POST", &format!("/api/v1/pods?{text}")).map(|info| info.query.dry_run);
    assert!(query("dryRun=All").unwrap());
    assert!(query("dryRun=All&dryRun=All").unwrap());
    assert!(!query("").unwrap());
    // Writes refuse it: see `api::write::check_options`.
    assert!(query("dryRun=Some").unwrap());
    assert!(query("dryRun=All&dryRun=Some").unwrap());
}

#[test]
fn the_old_form_of_a_watch_is_for_watches_alone() {
    let code = |method: &str, path: &str| parse(method, path).map_err(|status| status.code).err();
    assert_eq!(code("DELETE", "/api/v1/watch/namespaces/a/pods/p"), Some(405));
    assert_eq!(code("POST", "/api/v1/watch/namespaces/a/pods"), Some(405));
    assert_eq!(code("GET", "/api/v1/watch/namespaces/a/pods"), None);
}
