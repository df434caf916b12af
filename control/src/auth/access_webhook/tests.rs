//! Chains of those who decide, with a webhook on the loopback among them.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::{
    api::open_store,
    auth::{
        authorizer::{AuthorizationError, Authorizer, ChainLink, Verdict},
        configuration::authorization::{AuthorizationConfiguration, AuthorizerConfiguration},
        options::AuthorizationOptions,
        setup::authorization::{AccessWebhooks, AuthorizationSetup},
    },
    identity::ANONYMOUS,
    kinds::Registry,
    metrics::Metrics,
    request::tests::info,
    webhook::tests::TestServer,
};

/// Allows what `allowed` does, denies `denied`, and has no opinion of others.
async fn server() -> TestServer {
    let answering = Arc::new(|_: String, review: Value| {
        let status = match review["spec"]["user"].as_str().unwrap_or_default() {
            "allowed" => json!({"allowed": true, "reason": "by the webhook"}),
            "denied" => json!({"allowed": false, "denied": true, "reason": "go away"}),
            "both" => json!({"allowed": true, "denied": true}),
            _ => json!({"allowed": false, "reason": "never heard of"}),
        };
        let code = if review["spec"]["user"] == "broken" { 400 } else { 200 };
        let is_slow = review["spec"]["user"] == ANONYMOUS && review["spec"]["resourceAttributes"].is_object();
        let answer = json!({"apiVersion": review["apiVersion"], "kind": "SubjectAccessReview", "status": status});
        let answer: futures::future::BoxFuture<'static, (u16, Value)> = Box::pin(async move {
            if is_slow {
                std::future::pending::<()>().await;
            }
            (code, answer)
        });
        answer
    });
    TestServer::start(&["localhost"], answering).await
}

fn kubeconfig(dir: &Path, server: &TestServer) -> std::path::PathBuf {
    let path = dir.join("kubeconfig");
    let TestServer { port, bundle, .. } = server;
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
         clusters: [{{name: a, cluster: {{server: \"https://localhost:{port}/authorize\", certificate-authority-data: \
         {bundle}}}}}]\nusers: [{{name: a, user: {{}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn file(dir: &Path, kubeconfig: &Path, change: impl FnOnce(&mut Value)) -> std::path::PathBuf {
    let mut file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthorizationConfiguration",
        "authorizers": [
            {"type": "Webhook", "name": "w", "webhook": {
                "timeout": "3s",
                "subjectAccessReviewVersion": "v1",
                "matchConditionSubjectAccessReviewVersion": "v1",
                "failurePolicy": "NoOpinion",
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
                "matchConditions": [{"expression": "has(request.resourceAttributes)"}],
            }},
            {"type": "Node", "name": "node"},
            {"type": "RBAC", "name": "rbac"},
        ],
    });
    change(&mut file);
    let path = dir.join("authorization.json");
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

async fn authorizer(dir: &Path, options: AuthorizationOptions) -> (Authorizer, AccessWebhooks) {
    let authorizer = Authorizer::new(Arc::new(open_store(&dir.join("store"), &Registry::default()).unwrap()));
    let webhooks = AccessWebhooks::default();
    AuthorizationSetup::read(&options).await.unwrap().install(&authorizer, &webhooks);
    (authorizer, webhooks)
}

fn user(name: &str) -> Identity {
    Identity::authenticated(name.to_owned(), Vec::new())
}

async fn decide(authorizer: &Authorizer, name: &str, uri: &str) -> Verdict {
    authorizer.decide(&user(name), &Attributes::of(&info("GET", uri))).await.unwrap()
}

const PODS: &str = "/api/v1/namespaces/a/pods?fieldSelector=spec.nodeName%3Dn,metadata.name!%3Dp\
                    &labelSelector=app%20in%20(a),!b,c%3E1";

#[tokio::test]
async fn the_first_who_allows_or_denies_decides_and_answers_are_kept() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    let config_file = Some(file(dir.path(), &kubeconfig(dir.path(), &server), |_| {}));
    let options = AuthorizationOptions { config_file, ..AuthorizationOptions::default() };
    let (authorizer, webhooks) = authorizer(dir.path(), options).await;
    for _ in 0..2 {
        let allowed = decide(&authorizer, "allowed", PODS).await;
        assert_eq!(allowed, Verdict::Allowed { reason: "by the webhook".into() });
        let denied = Verdict::Refused { reason: "go away".into(), is_denied: true, error: None };
        assert_eq!(decide(&authorizer, "denied", PODS).await, denied);
        assert_eq!(decide(&authorizer, "joe", PODS).await, Verdict::no_opinion("never heard of"));
    }
    let sent = server.bodies("/authorize");
    assert_eq!(sent.len(), 3, "answers are kept");
    assert_eq!(
        (&sent[0]["apiVersion"], &sent[0]["spec"]),
        (
            &json!("authorization.k8s.io/v1"),
            &json!({"user": "allowed", "groups": ["system:authenticated"], "resourceAttributes": {
                "namespace": "a", "verb": "list", "version": "v1", "resource": "pods",
                "fieldSelector": {"requirements": [
                    {"key": "spec.nodeName", "operator": "In", "values": ["n"]},
                    {"key": "metadata.name", "operator": "NotIn", "values": ["p"]},
                ]},
                "labelSelector": {"requirements": [
                    {"key": "app", "operator": "In", "values": ["a"]},
                    {"key": "b", "operator": "DoesNotExist"},
                ]},
            }})
        )
    );
    // Its condition is about resources alone.
    assert_eq!(decide(&authorizer, "allowed", "/metrics").await, Verdict::no_opinion(""));
    assert_eq!(server.bodies("/authorize").len(), 3);
    let Verdict::Refused { is_denied: true, error: Some(error), .. } = decide(&authorizer, "both", PODS).await else {
        panic!("it is denied")
    };
    assert_eq!(error, "webhook subject access review returned both allow and deny response");
    // Administrators are never asked about.
    let admin = Identity::control("test");
    assert!(matches!(
        authorizer.decide(&admin, &Attributes::of(&info("GET", PODS))).await.unwrap(),
        Verdict::Allowed { .. }
    ));
    // Whoever cannot wait is answered where the webhook need not be asked.
    let here =
        |uri| authorizer.decide_here(&user("joe"), &user("allowed"), &Attributes::of(&info("GET", uri))).unwrap();
    assert_eq!(here(PODS), Verdict::Allowed { reason: "by the webhook".into() });
    assert_eq!(here("/metrics"), Verdict::no_opinion(""));
    let listed = authorizer.list_rules(&user("joe"), "a");
    assert!(listed.is_incomplete);
    assert_eq!(listed.errors, ["webhook authorizer does not support user rule resolution"]);
    let metrics = Metrics::default();
    metrics.add(move |scrape| webhooks.tell(scrape));
    let text = metrics.render().unwrap();
    let counted = "apiserver_authorization_webhook_evaluations_total{name=\"w\",result=\"success\"} 4";
    assert!(text.contains(counted), "{text}");
}

/// A webhook at `server` that is asked about everything.
async fn webhook(dir: &Path, server: &TestServer, failure_policy: FailurePolicy) -> AccessWebhook {
    let options = AuthorizationOptions {
        modes: vec![crate::auth::options::AuthorizationMode::Webhook],
        webhook_config_file: Some(kubeconfig(dir, server)),
        ..AuthorizationOptions::default()
    };
    let mut authorizers = AuthorizationConfiguration::of_flags(&options).unwrap().unwrap().authorizers;
    let AuthorizerConfiguration::Webhook { name, webhook } = authorizers.remove(0) else { panic!("there is one") };
    let client = KubeconfigClient::read(&webhook.kube_config_file).await.unwrap();
    let conditions = AccessConditions::compile(std::iter::empty()).unwrap();
    AccessWebhook::new(&name, client, WebhookConfiguration { failure_policy, ..webhook }, conditions)
}

/// A webhook that nobody can be asked about.
pub async fn full_webhook(dir: &Path) -> AccessWebhook {
    webhook(dir, &server().await, FailurePolicy::NoOpinion).await.limited_to(Shares::new(0, 0))
}

#[tokio::test]
async fn strangers_whom_a_webhook_is_asked_about_leave_places_to_users() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    let webhook = webhook(dir.path(), &server, FailurePolicy::NoOpinion).await;
    let webhook = webhook.limited_to(Shares::new(8, usize::MAX));
    // Each names another whom they would like to impersonate.
    let asked: Vec<_> = (0..8)
        .map(|number| {
            let webhook = webhook.clone();
            tokio::spawn(async move {
                let name = number.to_string();
                let whom = Resource { verb: "impersonate", resource: "users", name: &name, ..Resource::default() };
                webhook.decide(&Identity::anonymous(), &Attributes::Resource(whom)).await
            })
        })
        .collect();
    let some_wait = async {
        while server.bodies("/authorize").len() < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), some_wait).await.expect("half of the places are theirs");
    let info = info("GET", PODS);
    let opinion = webhook.decide(&user("allowed"), &Attributes::of(&info)).await;
    assert_eq!(opinion, Ok(Opinion::Allow("by the webhook".into())));
    let stranger =
        async |path| webhook.decide(&Identity::anonymous(), &Attributes::Path { verb: "get".to_owned(), path }).await;
    assert_eq!(stranger("/version").await, Err(NoPlace));
    assert_eq!(stranger("/livez").await, Ok(Opinion::none("never heard of")), "no stranger harms health checks");
    asked.iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn a_webhook_that_fails_leaves_it_to_others_or_denies() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    let kubeconfig = kubeconfig(dir.path(), &server);
    for (policy, is_denied) in [("NoOpinion", false), ("Deny", true)] {
        let change = |file: &mut Value| file["authorizers"][0]["webhook"]["failurePolicy"] = policy.into();
        let config_file = Some(file(dir.path(), &kubeconfig, change));
        let options = AuthorizationOptions { config_file, ..AuthorizationOptions::default() };
        let of_policy = dir.path().join(policy);
        std::fs::create_dir(&of_policy).unwrap();
        let (authorizer, _) = authorizer(&of_policy, options).await;
        let verdict = decide(&authorizer, "broken", PODS).await;
        let Verdict::Refused { error: Some(_), is_denied: found, .. } = &verdict else { panic!("{verdict:?}") };
        assert_eq!(*found, is_denied, "{policy}");
    }
    // Others may allow what it cannot be asked about, but not what this server does not ask.
    let (authorizer, _) = authorizer(dir.path(), AuthorizationOptions::default()).await;
    for (policy, is_allowed) in [(FailurePolicy::NoOpinion, true), (FailurePolicy::Deny, false)] {
        let webhook = webhook(dir.path(), &server, policy).await;
        let decide = async |webhook: AccessWebhook, name: &str| {
            authorizer.decide_by(vec![ChainLink::Webhook(Arc::new(webhook)), ChainLink::AlwaysAllow]);
            authorizer.decide(&user(name), &Attributes::of(&info("GET", PODS))).await
        };
        let is_left_to_others = async |webhook: AccessWebhook| {
            let verdict = decide(webhook, "broken").await.unwrap();
            assert_eq!(matches!(verdict, Verdict::Allowed { .. }), is_allowed, "{verdict:?}");
        };
        let full = webhook.clone().limited_to(Shares::new(0, 0));
        assert_eq!(decide(full.clone(), "broken").await.unwrap_err().to_status().code, 429);
        assert_eq!(webhook.counts().evaluations_failed_open(), 0);
        is_left_to_others(webhook.clone()).await;
        assert_eq!(webhook.counts().evaluations_failed_open(), u64::from(is_allowed));
    }
}

#[tokio::test]
async fn a_webhook_without_places_is_left_to_others_where_it_answers_nobody_at_all() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let (authorizer, _) = authorizer(dir.path(), AuthorizationOptions::default()).await;
    let nobody = TestServer {
        port,
        bundle: server.bundle.clone(),
        connections: server.connections.clone(),
        requests: server.requests.clone(),
    };
    for (policy, is_allowed) in [(FailurePolicy::NoOpinion, true), (FailurePolicy::Deny, false)] {
        let decide = async |webhook: &AccessWebhook, name: &str| {
            let chain = vec![ChainLink::Webhook(Arc::new(webhook.clone())), ChainLink::AlwaysAllow];
            authorizer.decide_by(chain);
            authorizer.decide(&user(name), &Attributes::of(&info("GET", PODS))).await
        };
        let answering = webhook(dir.path(), &server, policy).await.limited_to(Shares::new(0, 0));
        // Also while it refuses what somebody asks: who gets it to do so gains nothing.
        for _ in 0..3 {
            assert_eq!(decide(&answering, "broken").await.unwrap_err().to_status().code, 429);
            let before = server.bodies("/authorize").len();
            while server.bodies("/authorize").len() == before && answering.silence.probe().is_none() {
                tokio::task::yield_now().await;
            }
            assert_eq!(answering.counts().evaluations(), [0, 0], "nobody asked");
            assert!(!answering.silence.is_confirmed());
        }
        let places = Shares::new(4, usize::MAX);
        let all = places.take_anyway("many", 4);
        let mut silent = webhook(dir.path(), &nobody, policy).await.limited_to(places);
        Arc::make_mut(&mut silent.configuration).timeout = Duration::from_millis(100);
        assert_eq!(decide(&silent, "somebody").await.unwrap_err().to_status().code, 429);
        let is_seen = async {
            while !silent.silence.is_confirmed() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), is_seen).await.expect("its own question is not answered");
        let verdict = decide(&silent, "somebody").await.unwrap();
        assert_eq!(matches!(verdict, Verdict::Allowed { .. }), is_allowed, "{verdict:?}");
        assert_eq!(decide(&silent, "many").await.unwrap_err().to_status().code, 429, "never for who fills them");
        // It answers somebody.
        silent.silence.ends();
        assert_eq!(decide(&silent, "somebody").await.unwrap_err().to_status().code, 429);
        drop(all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_cannot_wait_is_answered_as_well() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    use crate::auth::options::AuthorizationMode::{Rbac, Webhook};
    let options = AuthorizationOptions {
        modes: vec![Rbac, Webhook],
        webhook_config_file: Some(kubeconfig(dir.path(), &server)),
        ..AuthorizationOptions::default()
    };
    let (authorizer, _) = authorizer(dir.path(), options).await;
    let asking = authorizer.clone();
    let asked = tokio::spawn(async move {
        let info = info("GET", PODS);
        asking.decide_here(&user("joe"), &user("allowed"), &Attributes::of(&info)).unwrap()
    });
    assert_eq!(asked.await.unwrap(), Verdict::Allowed { reason: "by the webhook".into() });
    let full = authorizer.clone().waiting_in(0);
    let asked = tokio::spawn(async move {
        let info = info("GET", PODS);
        let decide = |name| full.decide_here(&user("joe"), &user(name), &Attributes::of(&info));
        (decide("allowed"), decide("joe"))
    });
    let (kept, refused) = asked.await.unwrap();
    assert_eq!(kept.unwrap(), Verdict::Allowed { reason: "by the webhook".into() }, "no thread waits for it");
    let refused = refused.unwrap_err();
    assert!(matches!(refused, AuthorizationError::NoPlace(NoPlace)), "too many threads wait: {refused}");
    assert_eq!(server.bodies("/authorize").len(), 1);
    let sent = server.bodies("/authorize").remove(0);
    assert_eq!(sent["apiVersion"], "authorization.k8s.io/v1beta1");
    assert_eq!(sent["spec"]["group"], json!(["system:authenticated"]), "the older version names groups so");
}
