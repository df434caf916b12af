//! Events of requests to a control service with TLS.

use http::{Method, Request};
use http_body_util::BodyExt;
use kube::{
    client::Body,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use super::{events, options};
use crate::{Config, Running};

/// A control service without controllers, and its administrator.
struct Service {
    running: Running,
    admin: kube::Client,
    stranger: kube::Client,
    dir: tempfile::TempDir,
}

impl Service {
    async fn start(rules: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("data"));
        config.bind = ([127, 0, 0, 1], 0).into();
        config.api_only = true;
        config.audit = options(dir.path(), rules);
        let running = crate::start(config).await.unwrap();
        let kubeconfig = Kubeconfig::read_from(running.admin_kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let mut stranger = config.clone();
        stranger.auth_info = AuthInfo::default();
        let [admin, stranger] = [config, stranger].map(|config| kube::Client::try_from(config).unwrap());
        Self { running, admin, stranger, dir }
    }

    /// Sends a request with this `Audit-ID`, and reads the whole answer.
    async fn ask(&self, id: &str, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> u16 {
        let client =
            if headers.iter().any(|(name, _)| *name == "authorization") { &self.stranger } else { &self.admin };
        let response = client.send(request(id, method, path, headers, body)).await.unwrap();
        let code = response.status().as_u16();
        response.into_body().collect().await.unwrap();
        code
    }

    /// Stops the service. Answers with the events that it wrote.
    async fn stop(self) -> Written {
        drop((self.admin, self.stranger));
        self.running.shutdown().await;
        Written(events(self.dir.path()).into_iter().map(plain).collect())
    }
}

fn request(id: &str, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("audit-id", id).header("user-agent", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let text = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    request.body(Body::from(text)).unwrap()
}

/// Events without what differs from run to run.
struct Written(Vec<Value>);

impl Written {
    fn of(&self, id: &str) -> Vec<&Value> {
        self.0.iter().filter(|event| event["auditID"] == id).collect()
    }

    fn stages(&self, id: &str) -> Vec<&str> {
        self.of(id).into_iter().filter_map(|event| event["stage"].as_str()).collect()
    }

    fn last(&self, id: &str) -> &Value {
        self.of(id).pop().unwrap_or_else(|| panic!("no event of {id} in {:#?}", self.0))
    }
}

fn plain(mut event: Value) -> Value {
    let fields = event.as_object_mut().unwrap();
    for time in ["requestReceivedTimestamp", "stageTimestamp"] {
        let time = fields.shift_remove(time).unwrap();
        assert_eq!((time.as_str().unwrap().len(), time.as_str().unwrap().ends_with('Z')), (27, true), "{time}");
    }
    if let Some(user) = fields["user"].as_object_mut() {
        user.shift_remove("extra");
    }
    if let Some(notes) = fields.get_mut("annotations").and_then(Value::as_object_mut) {
        notes.shift_remove("apiserver.latency.k8s.io/total");
    }
    without_ids(&mut event);
    event
}

fn without_ids(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(without_ids),
        Value::Object(map) => {
            for (key, value) in map {
                match key.as_str() {
                    "uid" | "resourceVersion" | "creationTimestamp" => *value = "-".into(),
                    _ => without_ids(value),
                }
            }
        }
        _ => {}
    }
}

/// An event of the administrator's request about a ConfigMap, with these fields besides.
fn expected((id, stage, level): (&str, &str, &str), (verb, uri): (&str, &str), name: &str, more: Value) -> Value {
    let namespace = uri.split('/').nth(4).unwrap();
    let mut object = json!({"resource": "configmaps", "namespace": namespace, "apiVersion": "v1"});
    if !name.is_empty() {
        object["name"] = name.into();
    }
    let mut event = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level, "auditID": id,
        "stage": stage, "requestURI": uri, "verb": verb,
        "user": {"username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"]},
        "sourceIPs": ["127.0.0.1"], "userAgent": "test", "objectRef": object});
    for (field, value) in more.as_object().unwrap() {
        event[field] = value.clone();
    }
    event
}

fn allowed() -> Value {
    json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""})
}

const RULES: &str = r#"
- level: RequestResponse
  users: [kubernetes-admin]
  namespaces: [default]
  omitStages: [RequestReceived]
- {level: Request, users: [kubernetes-admin], namespaces: [kube-system]}
- {level: Metadata, users: [kubernetes-admin], namespaces: [kube-public]}
- {level: Metadata, users: [kubernetes-admin], nonResourceURLs: [/version]}
- level: Metadata
  verbs: [list]
  namespaces: [vault]
  resources: [{group: "", resources: [secrets]}]
"#;

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_have_the_events_that_their_level_says() {
    let service = Service::start(RULES).await;
    let (all, sent, plain) = (
        "/api/v1/namespaces/default/configmaps",
        "/api/v1/namespaces/kube-system/configmaps",
        "/api/v1/namespaces/kube-public/configmaps",
    );
    let a = &format!("{all}/a");
    assert_eq!(service.ask("create", Method::POST, all, &[], &config_map("a")).await, 201);
    assert_eq!(service.ask("get", Method::GET, a, &[], &Value::Null).await, 200);
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf"), ("accept-encoding", "gzip")];
    assert_eq!(service.ask("list", Method::GET, all, &protobuf, &Value::Null).await, 200);
    assert_eq!(service.ask("create-b", Method::POST, sent, &[], &config_map("b")).await, 201);
    let (b, merge) = (&format!("{sent}/b"), [("content-type", "application/merge-patch+json")]);
    assert_eq!(service.ask("patch", Method::PATCH, b, &merge, &json!({"data": {"k": "w"}})).await, 200);
    assert_eq!(service.ask("delete", Method::DELETE, b, &[], &Value::Null).await, 200);
    let none = &format!("{plain}/none");
    assert_eq!(service.ask("missing", Method::GET, none, &[], &Value::Null).await, 404);
    let as_jane = [("impersonate-user", "jane"), ("impersonate-group", "dev")];
    assert_eq!(service.ask("forbidden", Method::GET, none, &as_jane, &Value::Null).await, 403);
    let secrets = "/api/v1/namespaces/vault/secrets?limit=5";
    let nobody = [("authorization", "Bearer nonsense")];
    assert_eq!(service.ask("nobody", Method::GET, secrets, &nobody, &Value::Null).await, 401);
    assert_eq!(service.ask("version", Method::GET, "/version", &[], &Value::Null).await, 200);
    assert_eq!(service.ask("unaudited", Method::GET, "/api/v1/nodes", &[], &Value::Null).await, 200);
    let watch = &format!(
        "{sent}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true\
                          &resourceVersionMatch=NotOlderThan"
    );
    let response = service.admin.send(request("watch", Method::GET, watch, &[], &Value::Null)).await.unwrap();
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    drop(body);
    let written = service.stop().await;

    let stored = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "v"},
        "metadata": {"name": "a", "namespace": "default", "uid": "-", "resourceVersion": "-",
            "creationTimestamp": "-"}});
    let made = |code| json!({"metadata": {}, "code": code});
    let ended = "ResponseComplete";
    let create = expected(
        ("create", ended, "RequestResponse"),
        ("create", all),
        "a",
        json!({
        "responseStatus": made(201), "requestObject": config_map("a"), "responseObject": stored,
        "annotations": allowed()}),
    );
    assert_eq!(written.of("create"), [&create]);
    let get = expected(
        ("get", ended, "RequestResponse"),
        ("get", a),
        "a",
        json!({
        "responseStatus": made(200), "responseObject": stored, "annotations": allowed()}),
    );
    assert_eq!(written.of("get"), [&get]);
    let list = written.last("list");
    assert_eq!((&list["verb"], &list["responseObject"]["kind"]), (&json!("list"), &json!("ConfigMapList")));
    let items = list["responseObject"]["items"].as_array().unwrap();
    let listed = items.iter().find(|item| item["metadata"]["name"] == "a").unwrap();
    assert_eq!((&listed["data"], listed["metadata"].get("managedFields")), (&json!({"k": "v"}), None));

    let received = "RequestReceived";
    let create_b = [
        expected(("create-b", received, "Request"), ("create", sent), "", json!({})),
        expected(
            ("create-b", ended, "Request"),
            ("create", sent),
            "b",
            json!({
            "responseStatus": made(201), "requestObject": config_map("b"), "annotations": allowed()}),
        ),
    ];
    assert_eq!(written.of("create-b"), create_b.iter().collect::<Vec<_>>());
    let patch = expected(
        ("patch", ended, "Request"),
        ("patch", b),
        "b",
        json!({
        "responseStatus": made(200), "requestObject": {"data": {"k": "w"}}, "annotations": allowed()}),
    );
    assert_eq!(written.last("patch"), &patch);
    let details = json!({"name": "b", "kind": "configmaps", "uid": "-"});
    let deleted = json!({"metadata": {}, "status": "Success", "details": details, "code": 200});
    let delete = expected(
        ("delete", ended, "Request"),
        ("delete", b),
        "b",
        json!({
        "responseStatus": deleted, "annotations": allowed()}),
    );
    assert_eq!(written.last("delete"), &delete);

    let refused = |message: &str, reason: &str, code: u16| {
        json!({"metadata": {}, "status": "Failure", "message": message, "reason": reason,
            "details": {"name": "none", "kind": "configmaps"}, "code": code})
    };
    let missing = expected(
        ("missing", ended, "Metadata"),
        ("get", none),
        "none",
        json!({
        "responseStatus": refused("configmaps \"none\" not found", "NotFound", 404), "annotations": allowed()}),
    );
    assert_eq!(written.last("missing"), &missing);
    let why = "configmaps \"none\" is forbidden: User \"jane\" cannot get resource \"configmaps\" in API group \"\" in \
               the namespace \"kube-public\"";
    let forbidden = [
        expected(("forbidden", received, "Metadata"), ("get", none), "none", json!({})),
        expected(
            ("forbidden", ended, "Metadata"),
            ("get", none),
            "none",
            json!({
            "impersonatedUser": {"username": "jane", "groups": ["dev", "system:authenticated"]},
            "responseStatus": refused(why, "Forbidden", 403),
            "annotations": {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""}}),
        ),
    ];
    assert_eq!(written.of("forbidden"), forbidden.iter().collect::<Vec<_>>());

    let nobody = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "nobody",
        "stage": "ResponseStarted", "requestURI": secrets, "verb": "list", "user": {}, "sourceIPs": ["127.0.0.1"],
        "userAgent": "test", "objectRef": {"resource": "secrets", "namespace": "vault", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "status": "Failure", "message": "Unauthorized", "reason": "Unauthorized",
            "code": 401}});
    assert_eq!(written.of("nobody"), [&nobody]);
    let version = written.last("version");
    assert_eq!((&version["verb"], version.get("objectRef")), (&json!("get"), None));
    assert_eq!(version["responseStatus"], made(200));
    assert!(written.of("unaudited").is_empty());
    assert_eq!(written.stages("watch"), [received, "ResponseStarted", ended]);
    assert_eq!(written.last("watch")["responseStatus"], made(200));
}
