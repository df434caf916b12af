//! The API with an extension API server behind it, over real TLS.

pub mod extension_server;
mod kept_objects;
mod silent_server;

use std::{sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use futures::{SinkExt, channel::mpsc};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::extension_server::{ExtensionServer, GROUP, Got, Manner, ROOT, anywhere};
use super::*;
use crate::{
    api::{
        Api,
        tests::{
            Server,
            custom_resources::{DEFINITIONS, definition, version},
        },
    },
    auth::pki::{Authority, CertificateSubject, FRONT_PROXY_CLIENT, Usage},
    identity::Identity,
    request::PeerAddress,
    webhook::tests::redirected,
};

pub const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
pub const NAME: &str = "v1alpha1.wardle.example.com";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// An API that aggregates, and an extension server.
struct Setting {
    server: Server,
    extension: ExtensionServer,
    authority: Authority,
    aggregator: Aggregator,
    supervisor: Supervisor,
    authorities: watch::Sender<Authorities>,
}

/// Has `api` aggregate, with an extension server wherever Services lead.
pub async fn aggregate(api: &Api) -> (ExtensionServer, Authority, Aggregator, Supervisor, watch::Sender<Authorities>) {
    let now = OffsetDateTime::now_utc();
    let (authority, _) = Authority::create_named("front-proxy", now).unwrap();
    let subject = CertificateSubject { common_name: FRONT_PROXY_CLIENT.into(), ..CertificateSubject::default() };
    let issued = authority.issue(&subject, Usage::Client, Duration::from_secs(3600), now).unwrap();
    let front_proxy = Arc::new(FrontProxy::new(&issued, &ring::default_provider()).unwrap());
    let extension = ExtensionServer::start("api.wardle.svc", &authority).await;
    let dial = redirected(extension.port);
    let aggregator = Aggregator::new(api.store_handle(), api.published().clone(), dial, front_proxy);
    api.aggregate_through(aggregator.clone());
    let supervisor = Supervisor::default();
    let pem = authority.certificate_pem().to_owned();
    let authorities = watch::Sender::new(Authorities { clients: pem.clone(), front_proxy: pem, others: None });
    let client = api.client(Identity::control("test"));
    aggregator.start(&supervisor, &client, api.kinds(), authorities.subscribe());
    (extension, authority, aggregator, supervisor, authorities)
}

/// The Service of the extension server in the namespace `wardle`, and its endpoint; with the paths that make them.
pub fn service() -> [(&'static str, Value); 2] {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"},
        "spec": {"ports": [{"port": 443, "targetPort": 8443}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "api-1", "labels": {"kubernetes.io/service-name": "api"}},
        "ports": [{"name": "", "port": anywhere().port()}],
        "endpoints": [{"addresses": [anywhere().ip()], "conditions": {"ready": true}}]});
    [
        ("/api/v1/namespaces/wardle/services", service),
        ("/apis/discovery.k8s.io/v1/namespaces/wardle/endpointslices", slice),
    ]
}

/// The APIService of the extension server.
pub fn api_service(bundle: &str) -> Value {
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": NAME}, "spec": {"group": GROUP, "version": "v1alpha1", "caBundle": bundle,
            "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": "wardle", "name": "api", "port": 443}}})
}

impl Setting {
    async fn start() -> Self {
        let server = Server::with_definitions().await;
        for namespace in ["wardle", "kube-system"] {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            assert_eq!(server.post("/api/v1/namespaces", object).await.code, 201);
        }
        let (extension, authority, aggregator, supervisor, authorities) = aggregate(&server.api).await;
        Self { server, extension, authority, aggregator, supervisor, authorities }
    }

    /// With the Service, its endpoint and the APIService, which has become available.
    async fn available() -> Self {
        let setting = Self::start().await;
        setting.add_service().await;
        setting.add_api_service(&setting.extension.bundle).await;
        setting.wait_for("True", "Passed", "all checks passed").await;
        setting.wait_for_freshness("Current").await;
        setting
    }

    async fn add_service(&self) {
        for (path, object) in service() {
            let created = self.server.post(path, object).await;
            assert_eq!(created.code, 201, "{}", created.text);
        }
    }

    async fn add_api_service(&self, bundle: &str) {
        let created = self.server.post(API_SERVICES, api_service(bundle)).await;
        assert_eq!(created.code, 201, "{}", created.text);
    }

    /// Waits for what the condition says.
    async fn wait_for(&self, status: &str, reason: &str, message: &str) {
        let what = format!("{status}: {reason}: {message}");
        let path = format!("{API_SERVICES}/{NAME}");
        self.server
            .wait(&path, &what, |object| {
                let condition = &object["status"]["conditions"][0];
                let found = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
                found("status") == status && found("reason") == reason && found("message").contains(message)
            })
            .await;
    }

    async fn wait_for_freshness(&self, freshness: &str) {
        let found = async {
            loop {
                let list = self.server.get_as("/apis", AGGREGATED).await.json;
                let mut items = list["items"].as_array().into_iter().flatten();
                let group = items.find(|item| item["metadata"]["name"] == GROUP);
                if group.is_some_and(|group| group["versions"][0]["freshness"] == freshness) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found).await.expect("it is shown");
    }

    /// The last request of a user to a path that begins like this.
    fn last(&self, path: &str) -> Got {
        self.extension.got(path).pop().expect("a request")
    }

    async fn stop(self) {
        self.supervisor.shutdown().await;
    }
}

#[tokio::test]
async fn a_request_arrives_in_the_name_of_its_user_and_with_nothing_of_their_credentials() {
    let setting = Setting::available().await;
    let jane = Identity::authenticated("jane".into(), vec!["dev".into()]);
    let mut request = Request::post(format!("{ROOT}/namespaces/default/flunders?dryRun=All&fieldManager=a%3Bb"))
        .header(header::AUTHORIZATION, "Bearer secret")
        .header(header::COOKIE, "a=secret")
        .header("X-Remote-Group", "system:masters")
        .header("X-Remote-Extra-Scopes", "all")
        .header("Impersonate-User", "admin")
        .header("Audit-ID", "abc")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from("{\"a\":1}"))
        .unwrap();
    request.extensions_mut().insert(PeerAddress("192.0.2.9:7".parse().unwrap()));
    let response = setting.server.api.answer_as(jane, request).await;
    assert_eq!(response.status(), 201);
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "{\"kind\":\"Flunder\"}");

    let got = setting.last(ROOT);
    assert_eq!((got.method, got.body.as_str()), (Method::POST, "{\"a\":1}"));
    assert_eq!(got.uri, format!("{ROOT}/namespaces/default/flunders?dryRun=All&fieldManager=a%3Bb"));
    assert_eq!(got.client.as_deref(), Some(FRONT_PROXY_CLIENT));
    let values =
        |name: &str| -> Vec<&str> { got.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect() };
    assert_eq!(values("x-remote-user"), ["jane"]);
    assert_eq!(values("x-remote-group"), ["dev", "system:authenticated"]);
    assert_eq!(values("host"), ["10.244.0.7:8443"]);
    assert_eq!(values("x-forwarded-for"), ["192.0.2.9"]);
    assert_eq!(values("audit-id"), ["abc"]);
    for name in ["authorization", "cookie", "x-remote-extra-scopes", "impersonate-user"] {
        assert!(values(name).is_empty(), "{name}");
    }
    setting.stop().await;
}

#[tokio::test]
async fn a_server_is_available_while_its_service_leads_to_it_and_it_answers() {
    let setting = Setting::start().await;
    setting.add_api_service(&setting.extension.bundle).await;
    setting.wait_for("False", "ServiceNotFound", "service/api in \"wardle\" is not present").await;
    let refused = setting.server.get(&format!("{ROOT}/flunders")).await;
    assert_eq!((refused.code, refused.text.as_str()), (503, "service unavailable\n"));
    assert_eq!(refused.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    assert_eq!(setting.server.get(ROOT).await.code, 503);
    setting.wait_for_freshness("Stale").await;

    setting.add_service().await;
    setting.wait_for("True", "Passed", "all checks passed").await;
    setting.wait_for_freshness("Current").await;
    assert_eq!(setting.server.get(&format!("{ROOT}/flunders")).await.json["kind"], "FlunderList");
    assert_eq!(setting.server.get(ROOT).await.json["kind"], "APIResourceList");

    setting.extension.manner.lock().failing = Some(500);
    let path = format!("{API_SERVICES}/{NAME}");
    setting.server.merge(&path, json!({"metadata": {"labels": {"look": "again"}}})).await;
    let failing = format!(
        "failing or missing response from https://{}{ROOT}: bad status from https://{}{ROOT}: 500",
        anywhere(),
        anywhere()
    );
    setting.wait_for("False", "FailedDiscoveryCheck", &failing).await;
    *setting.extension.manner.lock() = Manner::default();
    setting.wait_for("True", "Passed", "all checks passed").await;

    let slices = "/apis/discovery.k8s.io/v1/namespaces/wardle/endpointslices/api-1";
    let unready = json!({"endpoints": [{"addresses": ["10.244.0.7"], "conditions": {"ready": false}}]});
    setting.server.merge(slices, unready).await;
    let missing = "endpointslices for service/api in \"wardle\" have no addresses with port name \"\"";
    setting.wait_for("False", "MissingEndpoints", missing).await;
    setting.server.delete(slices, json!({})).await;
    setting.wait_for("False", "EndpointsNotFound", "cannot find endpointslices for service/api in \"wardle\"").await;
    setting.server.delete(&path, json!({})).await;
    setting.server.wait(ROOT, "gone", Value::is_null).await;
    let names = setting.server.get("/apis").await.text;
    assert!(!names.contains(GROUP), "{names}");
    setting.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_prove_who_it_is_gets_no_request() {
    let setting = Setting::start().await;
    setting.add_service().await;
    let other = ExtensionServer::start("other.wardle.svc", &setting.authority).await;
    setting.add_api_service(&other.bundle).await;
    // Whether it answers is told without its certificate, as in Kubernetes.
    setting.wait_for("True", "Passed", "all checks passed").await;
    let refused = setting.server.get(&format!("{ROOT}/flunders")).await;
    let why = "error trying to reach service: tls: failed to verify certificate: x509: certificate signed by unknown \
               authority\n";
    assert_eq!((refused.code, refused.text.as_str()), (503, why));
    assert!(setting.extension.got(ROOT).is_empty());

    let insecure = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    setting.server.merge(&format!("{API_SERVICES}/{NAME}"), insecure).await;
    let path = format!("{ROOT}/flunders");
    setting.server.wait(&path, "answered", |answer| answer["kind"] == "FlunderList").await;
    let broken = json!({"spec": {"caBundle": "AAAA", "insecureSkipTLSVerify": null}});
    setting.server.merge(&format!("{API_SERVICES}/{NAME}"), broken).await;
    let refused = async {
        loop {
            let answer = setting.server.get(&path).await;
            if answer.code == 500 {
                return answer.text;
            }
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(20), refused).await.expect("refused");
    assert_eq!(text, "unable to load root certificates: unable to parse bytes as PEM block\n");
    setting.stop().await;
}

#[tokio::test]
async fn checks_of_a_server_go_over_connections_that_are_kept() {
    let setting = Setting::available().await;
    let aggregator = &setting.aggregator;
    let backend = aggregator.backend(GROUP, "v1alpha1").unwrap();
    let connections = || setting.extension.connections.load(std::sync::atomic::Ordering::SeqCst);
    aggregator.availability(&backend).await;
    let before = connections();
    for _ in 0..20 {
        assert_eq!(aggregator.availability(&backend).await.reason, "Passed");
    }
    assert!(connections() - before < 10, "{} for 20 checks", connections() - before);
    let path = format!("{API_SERVICES}/{NAME}");
    setting.server.merge(&path, json!({"metadata": {"labels": {"a": "b"}}})).await;
    let read_again = aggregator.backend(GROUP, "v1alpha1").unwrap();
    assert!(!Arc::ptr_eq(&backend, &read_again));
    let before = connections();
    assert_eq!(aggregator.availability(&read_again).await.reason, "Passed");
    assert!(connections() - before < 5, "another revision of the APIService keeps them");
    setting.stop().await;
}

#[tokio::test]
async fn what_is_served_here_is_never_forwarded() {
    let setting = Setting::available().await;
    let take_over = |group: &str, version: &str| {
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("{version}.{group}")}, "spec": {"group": group, "version": version,
                "groupPriorityMinimum": 2000, "versionPriority": 200, "insecureSkipTLSVerify": true,
                "service": {"namespace": "wardle", "name": "api", "port": 443}}})
    };
    assert_eq!(setting.server.post(API_SERVICES, take_over("apps", "v1")).await.code, 201);
    let path = format!("{API_SERVICES}/v1.apps");
    setting.server.wait(&path, "checked", |object| object["status"]["conditions"][0]["status"].is_string()).await;
    let list = setting.server.get("/apis/apps/v1/deployments").await;
    assert_eq!((list.code, list.json["kind"].as_str()), (200, Some("DeploymentList")));
    assert!(setting.server.get("/apis/apps/v1").await.text.contains("deployments"));
    assert!(setting.server.get("/openapi/v3/apis/apps/v1").await.text.contains("Deployment"));
    assert!(setting.extension.got("/apis/apps").is_empty());
    setting.stop().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_path_leads_nowhere_else() {
    let setting = Setting::available().await;
    let answer = setting.server.get(&format!("{ROOT}/namespaces/default/flunders/a/elsewhere")).await;
    let why = "the backend attempted to redirect this request, which is not permitted\n";
    assert_eq!((answer.code, answer.text.as_str()), (502, why));
    let sneaky = format!("{ROOT}/namespaces/default/flunders/a/proxy/..%2f..%2fb");
    assert_eq!(setting.server.get(&sneaky).await.code, 400);
    assert!(setting.extension.got(&sneaky).is_empty());
    setting.stop().await;
}

#[tokio::test]
async fn bodies_stream_both_ways_and_a_client_that_goes_away_ends_its_watch() {
    let setting = Setting::available().await;
    let (mut sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = Body::from_stream(receiver);
    let request = Request::post(format!("{ROOT}/namespaces/default/flunders/a/streamed")).body(body).unwrap();
    let mut echo = setting.server.send(request).await.into_body();
    for text in ["one", "two"] {
        sender.send(Ok(Bytes::from_static(text.as_bytes()))).await.unwrap();
        assert_eq!(echo.frame().await.unwrap().unwrap().into_data().unwrap(), text, "before the request ends");
    }
    drop(sender);
    assert!(echo.frame().await.is_none());

    let mut watches = setting.extension.watches.subscribe();
    let request = Request::get(format!("{ROOT}/flunders?watch=1")).body(Body::empty()).unwrap();
    let mut watch = setting.server.send(request).await.into_body();
    assert_eq!(watch.frame().await.unwrap().unwrap().into_data().unwrap(), "{\"type\":\"ADDED\"}\n");
    watches.wait_for(|count| *count == 1).await.unwrap();
    drop(watch);
    tokio::time::timeout(Duration::from_secs(20), watches.wait_for(|count| *count == 0)).await.unwrap().unwrap();
    setting.stop().await;
}

#[tokio::test]
async fn a_connection_switches_protocols_through_to_the_server() {
    let setting = Setting::available().await;
    let (near, far) = tokio::io::duplex(1024);
    let api = setting.server.api.clone();
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let api = api.clone();
        let user = Identity::authenticated("jane".into(), vec![]);
        async move { Ok::<_, std::convert::Infallible>(api.answer_as(user, request.map(Body::new)).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
    tokio::spawn(connection.with_upgrades());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let path = format!("{ROOT}/namespaces/default/flunders/a/connect");
    let request = Request::get(&path)
        .header(header::HOST, "api")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "echo")
        .header(header::AUTHORIZATION, "Bearer secret")
        .body(Body::empty())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()[header::UPGRADE], "echo");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    let got = setting.last(&path);
    assert_eq!(got.headers["x-remote-user"], "jane");
    assert!(!got.headers.contains_key(header::AUTHORIZATION));

    // One in process has no connection to hand over.
    let asked = [("connection", "Upgrade"), ("upgrade", "echo")];
    let refused = setting.server.call(Method::GET, &path, &asked, Body::empty()).await;
    assert_eq!((refused.code, refused.text.as_str()), (503, "request connection cannot be hijacked\n"));
    setting.stop().await;
}

#[tokio::test]
async fn discovery_and_openapi_hold_what_the_server_says_of_its_own_version() {
    let setting = Setting::available().await;
    let list = setting.server.get_as("/apis", AGGREGATED).await.json;
    let find = |name: &str| list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == name);
    let version = &find(GROUP).unwrap()["versions"][0];
    assert_eq!(version["resources"][0]["resource"], "flunders");
    assert_ne!(find("apps").unwrap()["versions"][0]["resources"], json!([]), "others are not its to change");
    let group = setting.server.get(&format!("/apis/{GROUP}")).await.json;
    assert_eq!(group["preferredVersion"]["version"], "v1alpha1");
    assert!(setting.server.get("/").await.text.contains(ROOT));

    let root = &ROOT[1..];
    let index = setting.server.wait("/openapi/v3", "complete", |index| index["paths"].get(root).is_some()).await;
    assert_eq!(index["paths"][root]["serverRelativeURL"], format!("/openapi/v3{ROOT}?hash=ABC"));
    assert_ne!(index["paths"]["api/v1"]["serverRelativeURL"], "/evil");
    let document = setting.server.get(&format!("/openapi/v3{ROOT}?hash=ABC")).await;
    assert_eq!(document.json, json!({"openapi": "3.0.0"}));
    let path = format!("{ROOT}/flunders");
    let swagger = setting.server.get("/openapi/v2").await.json;
    assert_eq!(swagger["paths"][&path]["get"]["responses"]["200"]["schema"]["$ref"], "#/definitions/Flunder");
    assert!(swagger["definitions"].get("Unused").is_none());
    assert_ne!(swagger["paths"]["/api/v1/pods"]["get"], json!({}));
    setting.stop().await;
}

#[tokio::test]
async fn an_older_server_is_asked_in_the_older_ways() {
    let setting = Setting::start().await;
    setting.extension.manner.lock().plain = true;
    setting.add_service().await;
    setting.add_api_service(&setting.extension.bundle).await;
    setting.wait_for("True", "Passed", "").await;
    setting.wait_for_freshness("Current").await;
    let list = setting.server.get_as("/apis", AGGREGATED).await.json;
    let group = list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == GROUP).unwrap();
    let resource = &group["versions"][0]["resources"][0];
    assert_eq!((&resource["scope"], &resource["shortNames"]), (&json!("Namespaced"), &json!(["fl"])));
    assert_eq!(resource["subresources"][0]["subresource"], "status");
    let root = &ROOT[1..];
    setting.server.wait("/openapi/v3", "complete", |index| index["paths"].get(root).is_some()).await;
    let document = setting.server.get(&format!("/openapi/v3{ROOT}")).await.json;
    assert_eq!(document["components"]["schemas"]["Flunder"]["type"], "object");
    setting.stop().await;
}
