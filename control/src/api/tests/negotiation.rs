//! The encodings and forms of answers: protobuf, YAML, partial metadata and Tables in both versions, gzip, `ETag`; and
//! the paths that are no objects.

use std::io::Read;

use futures::StreamExt;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Server, config_map, pod};
use crate::{
    api::protobuf::{
        self,
        tests::{read_frame, read_list},
    },
    kinds::{BuiltIn, Kind},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// As client-go's typed clients ask.
const TYPED: &str = "application/vnd.kubernetes.protobuf,application/json";

/// An answer with its bytes.
struct Raw {
    code: u16,
    headers: http::HeaderMap,
    body: Vec<u8>,
}

async fn call(server: &Server, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Raw {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = server.send(request.body(axum::body::Body::from(body.to_owned())).unwrap()).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Raw { code: parts.status.as_u16(), headers: parts.headers, body }
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Raw {
    call(server, Method::GET, path, headers, "").await
}

/// An object as it is read back from protobuf, which does not tell an empty object from none.
fn as_read(object: &Value) -> Value {
    protobuf::object(&protobuf::answer::whole(object.to_string().as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn every_answer_about_built_in_objects_comes_as_protobuf() {
    let server = Server::start().await;
    let accept = ("accept", TYPED);
    let created = call(&server, Method::POST, PODS, &[accept], &pod("a").to_string()).await;
    assert_eq!((created.code, &created.headers["content-type"]), (201, &PROTOBUF.parse().unwrap()));
    let stored = server.get(&format!("{PODS}/a")).await.json;
    assert_eq!(protobuf::object(&created.body).unwrap(), as_read(&stored));
    let read = get(&server, &format!("{PODS}/a"), &[accept]).await;
    assert_eq!(protobuf::object(&read.body).unwrap(), as_read(&stored));

    let patch = ("content-type", "application/merge-patch+json");
    let labels = r#"{"metadata":{"labels":{"x":"y"}}}"#;
    let patched = call(&server, Method::PATCH, &format!("{PODS}/a"), &[accept, patch], labels).await;
    assert_eq!(protobuf::object(&patched.body).unwrap()["metadata"]["labels"], json!({"x": "y"}));

    // Twice: made, and kept.
    for _ in 0..2 {
        let list = get(&server, "/api/v1/pods", &[accept]).await;
        assert_eq!(list.headers["content-type"], PROTOBUF);
        let (metadata, items) = read_list(&list.body);
        let json = server.get("/api/v1/pods").await.json;
        assert_eq!(metadata, json["metadata"]);
        let mut expected = as_read(&json["items"][0]);
        expected.as_object_mut().unwrap().retain(|name, _| name != "apiVersion" && name != "kind");
        assert_eq!(items, [expected]);
    }

    let deleted = call(&server, Method::DELETE, &format!("{PODS}/a?gracePeriodSeconds=0"), &[accept], "").await;
    assert_eq!((deleted.code, &deleted.headers["content-type"]), (200, &PROTOBUF.parse().unwrap()));
    let missing = get(&server, &format!("{PODS}/a"), &[accept]).await;
    assert_eq!((missing.code, &missing.headers["content-type"]), (404, &PROTOBUF.parse().unwrap()));
    let text = String::from_utf8_lossy(&missing.body).into_owned();
    assert!(missing.body.starts_with(b"k8s\0") && text.contains("pods \"a\" not found"), "{text}");
}

#[tokio::test]
async fn kinds_that_are_stored_as_others_have_protobuf_of_their_own() {
    let server = Server::start().await;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "Started",
        "type": "Normal", "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}});
    server.post("/api/v1/namespaces/default/events", event).await;
    let list = get(&server, "/apis/events.k8s.io/v1/events", &[("accept", PROTOBUF)]).await;
    let (_, items) = read_list(&list.body);
    assert_eq!(items[0]["regarding"]["name"], "p");
}

#[tokio::test]
async fn a_watch_in_protobuf_has_frames_with_their_length() {
    let server = Server::start().await;
    server.post(MAPS, config_map("a", json!({}))).await;
    let query = "watch=true&allowWatchBookmarks=true";
    let watch = |accept: &'static str, query: String| {
        let request = Request::get(format!("{MAPS}?{query}")).header("accept", accept);
        server.send(request.body(axum::body::Body::empty()).unwrap())
    };
    let response = watch("application/vnd.kubernetes.protobuf;stream=watch,application/json", query.into()).await;
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let mut plain = response.into_body().into_data_stream();
    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut partial = watch(partial, query.into()).await.into_body().into_data_stream();
    let mut selected = watch(PROTOBUF, "watch=true&labelSelector=x%3Dy".into()).await.into_body().into_data_stream();
    let stored = server.get(&format!("{MAPS}/a")).await.json;
    let without_type = |mut object: Value| {
        object.as_object_mut().unwrap().retain(|name, _| name != "apiVersion" && name != "kind");
        object
    };
    async fn frame(stream: &mut axum::body::BodyDataStream) -> (String, String, Value) {
        let chunk = stream.next().await.unwrap().unwrap();
        let mut rest = &chunk[..];
        let read = read_frame(&mut rest);
        assert!(rest.is_empty());
        read
    }
    let (event, kind, object) = frame(&mut plain).await;
    assert_eq!((&*event, &*kind, object), ("ADDED", "ConfigMap", without_type(stored.clone())));
    let (event, kind, bookmark) = frame(&mut plain).await;
    assert_eq!((&*event, &*kind), ("BOOKMARK", "ConfigMap"));
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let (event, kind, object) = frame(&mut partial).await;
    assert_eq!((&*event, &*kind, object), ("ADDED", "PartialObjectMetadata", json!({"metadata": stored["metadata"]})));
    frame(&mut partial).await;

    let changed = server.merge(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"x": "y"}}})).await.json;
    let (event, _, object) = frame(&mut plain).await;
    assert_eq!((&*event, &object), ("MODIFIED", &without_type(changed.clone())));
    let (event, _, object) = frame(&mut selected).await;
    assert_eq!((&*event, object), ("ADDED", without_type(changed)), "it enters the selection");
    server.merge(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"x": "z"}}})).await;
    let (event, _, object) = frame(&mut selected).await;
    assert_eq!((&*event, &object["metadata"]["labels"]["x"]), ("DELETED", &json!("y")));

    server.api.store().compact(server.api.store().published());
    let mut old = watch(PROTOBUF, "watch=true&resourceVersion=1".into()).await.into_body().into_data_stream();
    let (event, kind, status) = frame(&mut old).await;
    assert_eq!((&*event, &*kind, &status["code"]), ("ERROR", "Status", &json!(410)));
}

#[tokio::test]
async fn custom_resources_have_no_protobuf_but_their_metadata() {
    let server = Server::start().await;
    let kind = Kind {
        group: "example.org".into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
        singular: "widget".into(),
        ..Kind::from(&BuiltIn::PLAIN)
    };
    server.api.kinds().add(kind).unwrap();
    let path = "/apis/example.org/v1/namespaces/default/widgets";
    let widget = json!({"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "a"}, "size": 3});
    assert_eq!(server.post(path, widget).await.code, 201);
    let refused = get(&server, path, &[("accept", PROTOBUF)]).await;
    assert_eq!(refused.code, 406);
    assert_eq!(get(&server, path, &[("accept", TYPED)]).await.headers["content-type"], "application/json");
    let partial = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let list = get(&server, path, &[("accept", &partial)]).await;
    let (_, items) = read_list(&list.body);
    assert_eq!(items[0]["metadata"]["name"], "a");
    let one = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let one = get(&server, &format!("{path}/a"), &[("accept", &one)]).await;
    assert_eq!(one.headers["content-type"], PROTOBUF);
    let wrong = server.get(&format!("{path}?fieldSelector=spec.x%3D1")).await;
    assert_eq!(wrong.message(), "field label not supported: spec.x");
}

#[tokio::test]
async fn both_versions_of_the_meta_forms_are_served_and_told_apart_by_what_is_asked() {
    let server = Server::start().await;
    server.post(MAPS, config_map("a", json!({}))).await;
    let form = |form: &str, version: &str| format!("application/json;as={form};g=meta.k8s.io;v={version}");
    for version in ["v1", "v1beta1"] {
        let api_version = format!("meta.k8s.io/{version}");
        let list = server.get_as(MAPS, &form("PartialObjectMetadataList", version)).await.json;
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PartialObjectMetadataList"), &json!(api_version)));
        assert_eq!(list["items"][0]["apiVersion"], api_version);
        let table = server.get_as(&format!("{MAPS}/a"), &form("Table", version)).await.json;
        assert_eq!(table["apiVersion"], api_version);
        let row = &table["rows"][0]["object"];
        assert_eq!((&row["kind"], &row["apiVersion"]), (&json!("PartialObjectMetadata"), &json!(api_version)));
    }
    let table = |include: &'static str| {
        let path = format!("{MAPS}?includeObject={include}");
        let accept = form("Table", "v1");
        let server = &server;
        async move { server.get_as(&path, &accept).await }
    };
    assert_eq!(table("None").await.json["rows"][0]["object"], Value::Null);
    assert_eq!(table("Object").await.json["rows"][0]["object"]["data"], json!({"k": "v"}));
    assert_eq!(
        table("Some").await.message(),
        "Unable to convert to Table as requested: includeObject: Invalid value: \"Some\": must be 'Metadata', \
         'Object', 'None', or empty"
    );
    let list = server.get_as(MAPS, &form("PartialObjectMetadata", "v1")).await;
    let words = "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)";
    assert_eq!((list.code, list.message()), (406, words));
    let one = server.get_as(&format!("{MAPS}/a"), &form("PartialObjectMetadataList", "v1")).await;
    let words = "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)";
    assert_eq!((one.code, one.message()), (406, words));
}

#[tokio::test]
async fn yaml_and_indented_json_are_for_people() {
    let server = Server::start().await;
    server.post(MAPS, config_map("a", json!({}))).await;
    let path = format!("{MAPS}/a");
    let yaml = get(&server, &path, &[("accept", "application/yaml")]).await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    let read: Value = serde_yaml::from_str(std::str::from_utf8(&yaml.body).unwrap()).unwrap();
    assert_eq!(read, server.get(&path).await.json);
    let refused = get(&server, &format!("{MAPS}?watch=1"), &[("accept", "application/yaml")]).await;
    assert_eq!(refused.code, 406);
    for (query, agent, lines) in
        [("", "kubectl/v1.33", 1), ("?pretty=true", "kubectl/v1.33", 9), ("", "curl/8", 9), ("?pretty=0", "curl/8", 1)]
    {
        let answer = get(&server, &format!("{path}{query}"), &[("user-agent", agent)]).await;
        let text = String::from_utf8(answer.body).unwrap();
        assert!(if lines == 1 { text.lines().count() == 1 } else { text.lines().count() >= lines }, "{query} {agent}");
    }
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_take_it() {
    let server = Server::start().await;
    let large = |name: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"k": "v".repeat(100_000)}})
    };
    for name in ["a", "b"] {
        assert_eq!(server.post(MAPS, large(name)).await.code, 201);
    }
    let plain = get(&server, MAPS, &[]).await;
    assert!(!plain.headers.contains_key("content-encoding"));
    for accept in ["application/json", PROTOBUF] {
        let plain = get(&server, MAPS, &[("accept", accept)]).await;
        let packed = get(&server, MAPS, &[("accept", accept), ("accept-encoding", "br, gzip")]).await;
        assert_eq!(
            (&packed.headers["content-encoding"], &packed.headers["vary"]),
            (&"gzip".parse().unwrap(), &"Accept-Encoding".parse().unwrap())
        );
        assert!(packed.body.len() < plain.body.len() / 50);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain.body);
    }
    let short = get(&server, &format!("{MAPS}/a"), &[("accept-encoding", "gzip")]).await;
    assert!(!short.headers.contains_key("content-encoding"), "100 kB are not worth it");
}

#[tokio::test]
async fn a_list_in_protobuf_says_the_same_however_long_it_is() {
    let server = Server::start().await;
    for n in 0..9 {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{n}")},
            "data": {"k": "v".repeat(700_000)}});
        assert_eq!(server.post(MAPS, map).await.code, 201);
        // From one that is sent whole to one of which not all messages are kept until the first is sent.
        if [0, 1, 4, 8].contains(&n) {
            let list = get(&server, MAPS, &[("accept", PROTOBUF)]).await;
            assert_eq!(list.headers["content-type"], PROTOBUF);
            let (_, items) = read_list(&list.body);
            let told = items.iter().map(|item| (item["metadata"]["name"].clone(), item["data"]["k"].clone()));
            let made = (0..=n).map(|n| (json!(format!("m{n}")), json!("v".repeat(700_000))));
            assert!(told.eq(made), "{n}");
        }
    }
}

#[tokio::test]
async fn documents_that_a_client_has_are_not_sent_again() {
    let server = Server::start().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (path, accept) in [
        ("/apis", aggregated),
        ("/api", aggregated),
        ("/openapi/v2", "application/json"),
        ("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"),
        ("/openapi/v3", "application/json"),
        ("/openapi/v3/apis/apps/v1", "application/json"),
    ] {
        let first = get(&server, path, &[("accept", accept)]).await;
        let tag = first.headers["etag"].to_str().unwrap();
        assert!(first.code == 200 && tag.starts_with('"'), "{path}");
        let again = get(&server, path, &[("accept", accept), ("if-none-match", tag)]).await;
        assert_eq!((again.code, again.body.len()), (304, 0), "{path}");
        let other = get(&server, path, &[("accept", accept), ("if-none-match", "\"X\"")]).await;
        assert_eq!(other.code, 200, "{path}");
    }
    let index = server.get("/openapi/v3").await.json;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let by_hash = get(&server, url, &[]).await;
    assert_eq!((by_hash.code, &by_hash.headers["cache-control"]), (200, &"public, immutable".parse().unwrap()));
    let moved = get(&server, "/openapi/v3/apis/apps/v1?hash=OLD", &[]).await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (301, url));
    let refused = get(&server, "/openapi/v3/apis/apps/v1", &[("accept", "text/html")]).await;
    assert_eq!(refused.code, 406);
}

#[tokio::test]
async fn paths_that_lead_nowhere_say_so_as_kubernetes_does() {
    let server = Server::start().await;
    for path in ["/nope", "/apis/nope.org", "/apis/nope.org/v1", "/apis/nope.org/v1/things", "/api/v2/pods", "/livez/x"]
    {
        let answer = server.get(path).await;
        assert_eq!((answer.code, &*answer.text), (404, "404 page not found\n"), "{path}");
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8", "{path}");
    }
    let unknown = server.get("/api/v1/things").await;
    let expected = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "the server could not find the requested resource", "reason": "NotFound", "details": {},
        "code": 404});
    assert_eq!(unknown.json, expected);
    let paths = server.get("/").await.json;
    let paths: Vec<&str> = paths["paths"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for path in ["/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/livez/ping", "/openapi/v3/api/v1"] {
        assert!(paths.contains(&path), "{path}");
        assert_eq!(server.get(path).await.code, 200, "{path}");
    }
    assert!(paths.is_sorted());
}
