//! The objects of a running service: their conditions, and what is in force and told of them.

use http::Method;
use kube::Client;

use super::*;
use crate::{Config, Running};

async fn send(client: &Client, method: Method, path: &str, body: Option<Value>) -> Result<Value, kube::Error> {
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    client.request(request.body(body).expect("a request")).await
}

async fn text(client: &Client, path: &str) -> String {
    client.request_text(Request::get(path).body(Vec::new()).expect("a request")).await.expect("a page")
}

async fn start(dir: &std::path::Path) -> Running {
    let mut config = Config::new(dir);
    config.bind = ([127, 0, 0, 1], 0).into();
    config.api_only = true;
    crate::start(config).await.expect("a service")
}

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

/// The status and the reason of the condition `Dangling`.
async fn dangling(client: &Client, schema: &str) -> Option<(String, String)> {
    let schema = send(client, Method::GET, &format!("{GROUP}/flowschemas/{schema}"), None).await.expect("a schema");
    let mut conditions = schema["status"]["conditions"].as_array()?.iter();
    let condition = conditions.find(|condition| condition["type"] == "Dangling")?;
    let text = |field: &str| condition[field].as_str().map(str::to_owned);
    Some((text("status")?, text("reason")?))
}

async fn until_dangling(client: &Client, schema: &str, wanted: (&str, &str)) {
    let wanted = Some((wanted.0.to_owned(), wanted.1.to_owned()));
    let wait = async {
        while dangling(client, schema).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{schema} says {wanted:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_in_force_and_say_whether_their_levels_are_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = start(dir.path()).await;
    let client = running.client();
    until_dangling(&client, "service-accounts", ("False", "Found")).await;

    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"name": "mine"}, "spec": {"matchingPrecedence": 50,
            "priorityLevelConfiguration": {"name": "own"}, "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "joe"}}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    send(&client, Method::POST, &format!("{GROUP}/flowschemas"), Some(schema)).await.expect("created");
    until_dangling(&client, "mine", ("True", "NotFound")).await;
    let level = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "own"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 245,
            "limitResponse": {"type": "Reject"}}}});
    send(&client, Method::POST, &format!("{GROUP}/prioritylevelconfigurations"), Some(level)).await.expect("created");
    until_dangling(&client, "mine", ("False", "Found")).await;

    let levels = text(&client, "/debug/api_priority_and_fairness/dump_priority_levels").await;
    assert!(levels.lines().any(|line| line.starts_with("own,")), "{levels}");
    assert!(levels.starts_with("PriorityLevelName, ActiveQueues, IsIdle,"), "{levels}");
    for page in ["dump_queues", "dump_requests?includeRequestDetails=1"] {
        let page = text(&client, &format!("/debug/api_priority_and_fairness/{page}")).await;
        assert!(page.starts_with("PriorityLevelName, "), "{page}");
    }
    let metrics = text(&client, "/metrics").await;
    for line in [
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"own\"} 300.0",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"catch-all\"} 7.0",
        "apiserver_flowcontrol_current_executing_requests{priority_level=\"own\",flow_schema=\"mine\"} 0.0",
        "apiserver_flowcontrol_dispatched_requests_total{priority_level=\"own\",flow_schema=\"mine\"} 0",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line} in\n{metrics}");
    }
    drop(client);
    running.shutdown().await;
}

#[tokio::test]
async fn default_objects_take_requests_as_in_kubernetes() {
    let guarded = Guarded::start(600).await;
    let policy = guarded.control.inner.policy.load();
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/l";
    let pods = "/api/v1/namespaces/a/pods";
    for (schema, identity, method, uri) in [
        ("exempt", Identity::control("kubernetes-admin"), "GET", pods),
        ("probes", Identity::anonymous(), "GET", "/readyz"),
        ("catch-all", Identity { groups: Vec::new(), ..user("nobody") }, "GET", "/readyz"),
        ("system-leader-election", user("system:kube-scheduler"), "PUT", lease),
        ("system-leader-election", Identity::service_account("kube-system", "x"), "PUT", lease),
        ("system-node-high", node("n"), "PUT", lease),
        ("system-node-high", node("n"), "PATCH", "/api/v1/nodes/n/status"),
        ("system-nodes", node("n"), "GET", pods),
        ("kube-scheduler", user("system:kube-scheduler"), "GET", pods),
        ("kube-system-service-accounts", Identity::service_account("kube-system", "x"), "GET", pods),
        ("service-accounts", Identity::service_account("a", "x"), "GET", pods),
        ("service-accounts", Identity::service_account("a", "x"), "PUT", lease),
        ("global-default", user("joe"), "GET", pods),
        ("global-default", Identity::anonymous(), "GET", "/version"),
    ] {
        let taken = policy.classify(&identity, &crate::request::tests::info(method, uri));
        assert_eq!(&*taken.name, schema, "{} {method} {uri}", identity.name);
    }
}

#[tokio::test]
async fn deleted_mandatory_objects_stay_in_force() {
    let guarded = Guarded::start(600).await;
    guarded.control.configure(FlowControlSpec::of_objects(&[], &[]));
    let joe = guarded.ask(&user("joe"), Request::get("/api/v1/pods").body(Body::empty()).expect("a request")).await;
    assert_eq!(
        (joe.status().as_u16(), &joe.headers()["x-kubernetes-pf-flowschema-uid"]),
        (200, &"".parse().expect("empty"))
    );
    let policy = guarded.control.inner.policy.load();
    let names: Vec<&str> = policy.schemas.iter().map(|schema| &*schema.name).collect();
    assert_eq!(names, ["exempt", "catch-all"]);
}

#[tokio::test]
async fn a_removed_level_goes_once_its_requests_have() {
    let guarded = Guarded::start(600).await;
    let held = Request::get("/api/v1/pods").header(HOLD, "").body(Body::empty()).expect("a request");
    let held = tokio::spawn(guarded.ask(&user("joe"), held));
    until("it is held", || guarded.handler.held.load(Relaxed) == 1).await;
    guarded.control.configure(FlowControlSpec::of_objects(&[], &[]));
    let has_level = || guarded.control.inner.levels.lock().by_name.contains_key("global-default");
    guarded.control.adjust();
    assert!(has_level());
    guarded.handler.released.add_permits(1);
    assert_eq!(held.await.expect("no panic").status(), 200);
    guarded.control.adjust();
    assert!(!has_level());
}

#[tokio::test]
async fn a_busy_level_is_lent_seats_at_the_next_adjustment() {
    let guarded = Guarded::start(600).await;
    let seats = || guarded.control.inner.levels.lock().by_name["global-default"].seats;
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..400 {
        let held = Request::get("/api/v1/pods").header(HOLD, "").body(Body::empty()).expect("a request");
        requests.spawn(guarded.ask(&user(&format!("user-{}", number % 20)), held));
    }
    let has_come = || guarded.counts("global-default").executing + guarded.counts("global-default").waiting == 400;
    until("all have come", has_come).await;
    let (before, executing) = (seats(), guarded.counts("global-default").executing);
    assert!(executing <= before);
    until("some time has passed", || {
        guarded.control.adjust();
        seats() > before
    })
    .await;
    until("more execute", || guarded.counts("global-default").executing > executing).await;
    guarded.handler.released.add_permits(400);
    assert!(requests.join_all().await.iter().all(|answer| answer.status() == 200));
}
