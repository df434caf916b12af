//! Lists and watches by indexed fields, in pages, with odd options; the field selectors of both event APIs.

use std::time::Duration;

use futures::StreamExt;
use http::Request;
use serde_json::{Value, json};

use super::{Server, config_map, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn pod_on(name: &str, node: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["nodeName"] = node.into();
    pod
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

async fn begin(server: &Server, path: &str) -> axum::body::BodyDataStream {
    let response = server.send(Request::builder().uri(path).body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200, "{path}");
    response.into_body().into_data_stream()
}

async fn next(watch: &mut axum::body::BodyDataStream) -> Option<Value> {
    let chunk = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("a frame comes");
    chunk.map(|chunk| serde_json::from_slice(&chunk.unwrap()).unwrap())
}

#[tokio::test]
async fn of_a_thousand_watches_by_node_one_wakes_for_a_pod() {
    let server = Server::start().await;
    let mut watches = Vec::new();
    for node in 0..1000 {
        let path = format!("/api/v1/pods?watch=true&resourceVersion=1&fieldSelector=spec.nodeName%3Dn{node}");
        watches.push(begin(&server, &path).await);
    }
    let before = server.api.store().stats();
    assert_eq!(before.watches, 1000);
    assert_eq!(server.post(PODS, pod_on("a", "n7")).await.code, 201);
    assert_eq!(server.api.store().stats().watch_wakes - before.watch_wakes, 1);
    let frame = next(&mut watches[7]).await.unwrap();
    assert_eq!((&frame["type"], &frame["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
}

#[tokio::test]
async fn a_watch_by_name_wakes_for_that_name_alone() {
    let server = Server::start().await;
    let mut watch = begin(&server, &format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Db")).await;
    let before = server.api.store().stats().watch_wakes;
    server.post(MAPS, config_map("a", json!({}))).await;
    server.post(MAPS, config_map("b", json!({}))).await;
    assert_eq!(server.api.store().stats().watch_wakes - before, 1);
    assert_eq!(next(&mut watch).await.unwrap()["object"]["metadata"]["name"], "b");
}

#[tokio::test]
async fn pods_of_a_node_are_listed_in_pages() {
    let server = Server::start().await;
    for (index, node) in ["n1", "n2", "n1", "n2", "n1"].iter().enumerate() {
        server.post(PODS, pod_on(&format!("p{index}"), node)).await;
    }
    let path = "/api/v1/pods?fieldSelector=spec.nodeName%3D%3Dn1&limit=2";
    let first = server.get(path).await;
    assert_eq!(names(&first.json), ["p0", "p2"]);
    let token = first.json["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{path}&continue={token}")).await;
    assert_eq!(names(&second.json), ["p4"]);
    assert_eq!(second.json["metadata"].get("continue"), None);
    let both = server.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1,metadata.name%3Dp2").await;
    assert_eq!(names(&both.json), ["p2"]);
    let none = server.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1,spec.nodeName%3Dn2").await;
    assert!(names(&none.json).is_empty());
    let unassigned = server.get("/api/v1/pods?fieldSelector=spec.nodeName%3D").await;
    assert!(names(&unassigned.json).is_empty());
}

#[tokio::test]
async fn a_name_is_found_in_all_namespaces() {
    let server = Server::start().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    server.post("/api/v1/namespaces", namespace).await;
    for namespace in ["default", "other"] {
        for name in ["a", "b"] {
            server.post(&format!("/api/v1/namespaces/{namespace}/configmaps"), config_map(name, json!({}))).await;
        }
    }
    let found = server.get("/api/v1/configmaps?fieldSelector=metadata.name%3Db").await;
    let places: Vec<_> =
        found.json["items"].as_array().unwrap().iter().map(|item| item["metadata"]["namespace"].clone()).collect();
    assert_eq!(places, ["default", "other"]);
}

#[tokio::test]
async fn tokens_that_the_list_did_not_give_are_refused() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.post(MAPS, config_map(name, json!({}))).await;
    }
    let first = server.get(&format!("{MAPS}?limit=1")).await;
    let token = first.json["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&server.get(&format!("{MAPS}?limit=1&continue={token}")).await.json), ["b"]);
    let elsewhere = server.get(&format!("/api/v1/namespaces/other/configmaps?continue={token}")).await;
    assert_eq!(elsewhere.reason(), (400, "BadRequest"));
    for bad in ["x", &"a".repeat(5000), "eyJydiI6MX0"] {
        let refused = server.get(&format!("{MAPS}?limit=1&continue={bad}")).await;
        assert_eq!(refused.reason(), (400, "BadRequest"), "{bad:.20}");
        assert!(refused.message().starts_with("invalid continue token: continue key is not valid"), "{bad:.20}");
    }
    let pinned = server.get(&format!("{MAPS}?limit=1&continue={token}&resourceVersion=1")).await;
    assert_eq!(pinned.reason(), (400, "BadRequest"));
}

#[tokio::test]
async fn a_list_whose_state_is_gone_goes_on_inconsistently_or_anew() {
    let server = Server::start().await;
    for name in ["a", "c"] {
        server.post(MAPS, config_map(name, json!({}))).await;
    }
    let first = server.get(&format!("{MAPS}?limit=1")).await;
    let token = first.json["metadata"]["continue"].as_str().unwrap();
    server.post(MAPS, config_map("b", json!({}))).await;
    // The kept state is let go, and so is the history.
    let (store, now) = (server.api.store(), std::time::Instant::now());
    store.trim(now + Duration::from_secs(301));
    let expired = server.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!(expired.reason(), (410, "Expired"));
    assert!(expired.message().contains("use the continue token in this response"), "{}", expired.message());
    let token = expired.json["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!(names(&second.json), ["b"], "{}", second.json);
    assert_eq!(second.json["metadata"]["remainingItemCount"], 1);
    assert_ne!(second.json["metadata"]["resourceVersion"], first.json["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_list_shows_the_state_that_is_asked_for() {
    let server = Server::start().await;
    let mut revisions = Vec::new();
    for name in ["a", "b", "c"] {
        let created = server.post(MAPS, config_map(name, json!({}))).await;
        revisions.push(created.json["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
    }
    server.delete(&format!("{MAPS}/a"), json!({})).await;
    let exact = format!("{MAPS}?resourceVersionMatch=Exact&resourceVersion={}", revisions[1]);
    let found = server.get(&exact).await;
    assert_eq!(names(&found.json), ["a", "b"]);
    assert_eq!(found.json["metadata"]["resourceVersion"], *revisions[1]);
    let newer = server.get(&format!("{MAPS}?resourceVersionMatch=NotOlderThan&resourceVersion={}", revisions[1])).await;
    assert_eq!(names(&newer.json), ["b", "c"]);
    assert_eq!(names(&server.get(&format!("{MAPS}?resourceVersion={}", revisions[1])).await.json), ["b", "c"]);
    // Without a match, a limit asks for exactly that revision; the next page is of the same.
    let page = server.get(&format!("{MAPS}?limit=1&resourceVersion={}", revisions[1])).await;
    assert_eq!((names(&page.json), &page.json["metadata"]["remainingItemCount"]), (vec!["a"], &json!(1)));
    let token = page.json["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&server.get(&format!("{MAPS}?limit=1&continue={token}")).await.json), ["b"]);
    server.api.store().compact(server.api.store().published());
    let gone = server.get(&exact).await;
    let words = "The resourceVersion for the provided list is too old.";
    assert_eq!((gone.reason(), gone.message()), ((410, "Expired"), words));
}

#[tokio::test]
async fn a_read_waits_for_the_version_it_names_and_tells_when_that_does_not_come() {
    let server = Server::start().await;
    let next = server.api.store().published() + 1;
    let list = format!("{MAPS}?resourceVersion={next}&resourceVersionMatch=NotOlderThan");
    let (found, _) = tokio::join!(server.get(&list), server.post(MAPS, config_map("a", json!({}))));
    assert_eq!(names(&found.json), ["a"]);
    for path in [format!("{MAPS}?resourceVersion=999"), format!("{MAPS}/a?resourceVersion=999")] {
        let refused = server.get(&path).await;
        assert_eq!(refused.reason(), (504, "Timeout"), "{path}");
        assert_eq!(refused.message(), format!("Timeout: Too large resource version: 999, current: {next}"));
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        assert_eq!(refused.json["details"], json!({"causes": [cause], "retryAfterSeconds": 1}));
        assert_eq!(refused.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn options_that_do_not_go_together_are_refused_in_kubernetes_words() {
    let server = Server::start().await;
    for (query, words) in [
        (
            "resourceVersionMatch=Exact",
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        (
            "resourceVersionMatch=Nope&resourceVersion=1",
            "resourceVersionMatch: Unsupported value: \"Nope\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=1&continue=x",
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
        ),
        ("sendInitialEvents=true", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        (
            "watch=1&resourceVersionMatch=Exact",
            "[resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
             provided, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]",
        ),
    ] {
        let refused = server.get(&format!("{MAPS}?{query}")).await;
        assert_eq!(refused.reason(), (422, "Invalid"), "{query}");
        assert_eq!(refused.message(), format!("ListOptions.meta.k8s.io \"\" is invalid: {words}"));
    }
    for (query, words) in [
        (
            "resourceVersion=x",
            "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid \
             syntax",
        ),
        ("limit=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        (
            "fieldSelector=spec.x%3D1",
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
    ] {
        let refused = server.get(&format!("{MAPS}?{query}")).await;
        assert_eq!((refused.reason(), refused.message()), ((400, "BadRequest"), words), "{query}");
    }
}

#[tokio::test]
async fn a_change_wakes_the_watches_of_its_namespace_alone() {
    let server = Server::start().await;
    let mut watches = Vec::new();
    for number in 0..100 {
        watches.push(begin(&server, &format!("/api/v1/namespaces/n{number}/configmaps?watch=true")).await);
    }
    let selected = "/api/v1/configmaps?watch=true&fieldSelector=metadata.namespace%3Ddefault";
    let mut selected = begin(&server, selected).await;
    let mut own = begin(&server, &format!("{MAPS}?watch=true")).await;
    let before = server.api.store().stats().watch_wakes;
    server.post(MAPS, config_map("a", json!({}))).await;
    assert_eq!(server.api.store().stats().watch_wakes - before, 2);
    for watch in [&mut own, &mut selected] {
        assert_eq!(next(watch).await.unwrap()["object"]["metadata"]["name"], "a");
    }
}

#[tokio::test]
async fn a_watch_takes_any_timeout() {
    let server = Server::start().await;
    for (timeout, code) in [("0", 200), ("9223372036854775807", 200), ("-1", 200), ("18446744073709551615", 400)] {
        let path = format!("{MAPS}?watch=true&timeoutSeconds={timeout}");
        let response = server.send(Request::builder().uri(&path).body(axum::body::Body::empty()).unwrap()).await;
        assert_eq!(response.status(), code, "{timeout}");
        if code != 200 {
            continue;
        }
        let mut watch = response.into_body().into_data_stream();
        server.post(MAPS, config_map(&format!("x{timeout}").replace('-', "m"), json!({}))).await;
        assert_eq!(next(&mut watch).await.unwrap()["type"], "ADDED", "{timeout}");
        server.delete(&format!("{MAPS}/x{}", timeout.replace('-', "m")), json!({})).await;
    }
}

#[tokio::test]
async fn a_watch_that_reads_too_slowly_is_told_that_it_missed_changes() {
    let server = Server::start().await;
    let mut plain = begin(&server, &format!("{MAPS}?watch=true")).await;
    let mut by_name = begin(&server, &format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Da")).await;
    server.post(MAPS, config_map("a", json!({}))).await;
    server.api.store().compact(server.api.store().published());
    for watch in [&mut plain, &mut by_name] {
        let frame = next(watch).await.unwrap();
        assert_eq!((&frame["type"], &frame["object"]["code"]), (&json!("ERROR"), &json!(410)));
        assert_eq!(next(watch).await, None);
    }
}

#[tokio::test]
async fn events_are_selected_by_the_fields_of_their_api() {
    let server = Server::start().await;
    let event = |name: &str, about: &str| {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "reason": "Started", "type": "Normal",
            "reportingComponent": "c", "source": {"component": "kubelet"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": about, "uid": format!("uid-of-{about}")}})
    };
    let core = "/api/v1/namespaces/default/events";
    let newer = "/apis/events.k8s.io/v1/namespaces/default/events";
    let mut watch = begin(&server, &format!("{newer}?watch=true&fieldSelector=regarding.uid%3Duid-of-b")).await;
    for (name, about) in [("one", "a"), ("two", "b")] {
        assert_eq!(server.post(core, event(name, about)).await.code, 201);
    }
    let seen = next(&mut watch).await.unwrap();
    assert_eq!(
        (&seen["object"]["apiVersion"], &seen["object"]["regarding"]["name"]),
        (&json!("events.k8s.io/v1"), &json!("b"))
    );
    for (path, selector, found) in [
        (newer, "regarding.name%3Db", vec!["two"]),
        (newer, "regarding.uid%3Duid-of-a,regarding.kind%3DPod", vec!["one"]),
        (newer, "regarding.namespace!%3Ddefault", vec![]),
        (newer, "reportingController%3Dc,reason%3DStarted,type%3DNormal", vec!["one", "two"]),
        (newer, "metadata.name%3Done", vec!["one"]),
        (core, "involvedObject.name%3Db", vec!["two"]),
        (core, "involvedObject.uid%3Duid-of-a", vec!["one"]),
        (core, "source%3Dkubelet,reportingComponent%3Dc", vec!["one", "two"]),
    ] {
        let answer = server.get(&format!("{path}?fieldSelector={selector}")).await;
        assert_eq!(answer.code, 200, "{selector}: {}", answer.json);
        assert_eq!(names(&answer.json), found, "{selector}");
    }
    for (path, field) in [(newer, "involvedObject.name"), (newer, "source"), (core, "regarding.name")] {
        let refused = server.get(&format!("{path}?fieldSelector={field}%3Db")).await;
        assert_eq!(refused.reason(), (400, "BadRequest"), "{field}");
        assert_eq!(refused.message(), format!("field label not supported: {field}"));
    }
    let deleted = server.delete(&format!("{newer}?fieldSelector=regarding.name%3Da"), json!({})).await;
    assert_eq!(deleted.code, 200);
    assert_eq!(names(&server.get(core).await.json), ["two"]);
}

#[tokio::test]
async fn a_read_waits_for_no_body() {
    let server = Server::start().await;
    let never = futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
    let body = axum::body::Body::from_stream(never);
    let request = http::Request::get("/api/v1/namespaces/default").body(body).unwrap();
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), server.send(request)).await;
    assert_eq!(answer.expect("it is answered at once").status(), 200);
}

#[tokio::test]
async fn a_long_list_that_is_sent_in_parts_is_the_one_that_is_sent_whole() {
    let server = Server::start().await;
    for n in 0..200 {
        let mut map = config_map(&format!("m{n:03}"), json!({"app": "x"}));
        map["data"] = json!({"text": "x".repeat(1000)});
        assert_eq!(server.post(MAPS, map).await.code, 201);
    }
    let forms = [
        "application/json",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    ];
    for accept in forms {
        for path in [MAPS.to_owned(), format!("{MAPS}?limit=120"), format!("{MAPS}?labelSelector=app%3Dnone")] {
            let request = || Request::builder().uri(&path).header("Accept", accept);
            let parts = server.send(request().body(axum::body::Body::empty()).unwrap()).await;
            let parts: Vec<_> = parts.into_body().into_data_stream().map(|part| part.unwrap()).collect().await;
            // An answer to a client that takes gzip is made whole, and compressed where it is long.
            let whole = request().header("Accept-Encoding", "gzip").body(axum::body::Body::empty()).unwrap();
            let whole = server.send(whole).await;
            let is_compressed = whole.headers().contains_key("content-encoding");
            let bytes = axum::body::to_bytes(whole.into_body(), usize::MAX).await.unwrap();
            let mut text = Vec::new();
            match is_compressed {
                true => drop(std::io::copy(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut text).unwrap()),
                false => text.extend_from_slice(&bytes),
            }
            assert!(parts.concat() == text, "{accept} {path}");
            if accept == "application/json" && path == MAPS {
                assert!(parts.len() > 2, "{} parts", parts.len());
                assert_eq!(names(&serde_json::from_slice(&text).unwrap()).len(), 200);
            }
        }
    }
}
