//! What admission costs a create: the same creates with nothing to ask, with a ValidatingAdmissionPolicy whose CEL
//! expressions all pass, and with a validating webhook that answers at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::Engine;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::Client;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::{api_writes::write, kit::Result};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
/// How long a policy or webhook may take to be asked.
const PATIENCE: Duration = Duration::from_secs(60);
/// Each set is created in so many turns, so that what else the machine does meets all sets alike.
const TURNS: usize = 5;

/// What is asked about a ConfigMap, which says so by its label `ask`.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    Nothing,
    Policy,
    Webhook,
}

impl Ask {
    /// In the order of [`creates`]' answer.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Policy, Self::Webhook];

    fn label(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Policy => "policy",
            Self::Webhook => "webhook",
        }
    }
}

/// Creates per second by one writer, of `count` ConfigMaps for each of [`Ask::ALL`].
pub async fn creates(client: &Client, count: usize) -> Result<[f64; 3]> {
    let webhook = Webhook::start().await?;
    for (resource, object) in rules_of(&webhook) {
        write(client, "POST", &format!("{REGISTRATION}/{resource}"), "application/json", &object).await?;
    }
    wait_until_asked(client, &webhook).await?;
    let mut seconds = [0.0; Ask::ALL.len()];
    for turn in 0..TURNS {
        for (ask, seconds) in Ask::ALL.into_iter().zip(&mut seconds) {
            let start = Instant::now();
            for index in (turn..count).step_by(TURNS) {
                create(client, ask, &format!("{}-{index:06}", ask.label()), "good").await?;
            }
            *seconds += start.elapsed().as_secs_f64();
        }
    }
    let asked = webhook.asked.load(Ordering::Relaxed);
    if asked < count {
        return Err(format!("the webhook was asked {asked} times about {count} creates").into());
    }
    // What is measured next creates ConfigMaps, too.
    for (resource, _) in rules_of(&webhook) {
        remove(client, &format!("{REGISTRATION}/{resource}/bench")).await?;
    }
    remove(client, &format!("{MAPS}?labelSelector=team%3Dbench")).await?;
    Ok(seconds.map(|seconds| count as f64 / seconds))
}

async fn create(client: &Client, ask: Ask, name: &str, value: &str) -> Result {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": value, "other": "x".repeat(500)},
        "metadata": {"name": name, "labels": {"ask": ask.label(), "team": "bench"}}});
    write(client, "POST", MAPS, "application/json", &map).await.map(drop)
}

/// The policy, its binding and the webhook: the resource and the object of each.
fn rules_of(webhook: &Webhook) -> [(&'static str, Value); 3] {
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["configmaps"]}]);
    let asks = |ask: Ask| json!({"matchLabels": {"ask": ask.label()}});
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "bench"}, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": rules, "objectSelector": asks(Ask::Policy)},
        "variables": [{"name": "total", "expression": "object.data.map(k, size(object.data[k])).sum()"}],
        "validations": [
            {"expression": "object.data.key == 'good'", "message": "refused by the bench's policy"},
            {"expression": "object.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"},
            {"expression": "has(object.metadata.labels.team) && object.metadata.labels.team in ['bench', 'x']"},
            {"expression": "variables.total < 10000"},
            {"expression": "object.data.all(k, !k.startsWith('forbidden'))"},
        ]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "bench"}, "spec": {"policyName": "bench", "validationActions": ["Deny"]}});
    let hook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "bench"}, "webhooks": [{
            "name": "hook.bench.example", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "rules": rules, "objectSelector": asks(Ask::Webhook),
            "clientConfig": {"url": webhook.url, "caBundle": webhook.ca_bundle}}]});
    [
        ("validatingadmissionpolicies", policy),
        ("validatingadmissionpolicybindings", binding),
        ("validatingwebhookconfigurations", hook),
    ]
}

async fn remove(client: &Client, path: &str) -> Result {
    client.request_text(http::Request::delete(path).body(Vec::new())?).await?;
    Ok(())
}

/// A server learns of policies and webhooks by watches of its own.
async fn wait_until_asked(client: &Client, webhook: &Webhook) -> Result {
    let start = Instant::now();
    for attempt in 0.. {
        let refused = create(client, Ask::Policy, &format!("bad-{attempt}"), "bad").await;
        create(client, Ask::Webhook, &format!("asked-{attempt}"), "good").await?;
        let is_refused = refused.is_err_and(|error| error.to_string().contains("refused by the bench's policy"));
        if is_refused && webhook.asked.load(Ordering::Relaxed) > 0 {
            break;
        }
        if start.elapsed() > PATIENCE {
            return Err("the policy or the webhook is never asked".into());
        }
        // How often is looked, not a guess of how long it takes.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    webhook.asked.store(0, Ordering::Relaxed);
    Ok(())
}

/// A webhook that allows everything; ends with the value.
struct Webhook {
    url: String,
    ca_bundle: String,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Webhook {
    async fn start() -> Result<Self> {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let socket = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("https://127.0.0.1:{}/", socket.local_addr()?.port());
        let ca_bundle = base64::engine::general_purpose::STANDARD.encode(certified.cert.pem());
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let (acceptor, asked) = (acceptor.clone(), counter.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| allow(request, asked.clone()));
                    let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                        eprintln!("a connection to the bench's webhook: {error}");
                    }
                });
            }
        });
        Ok(Self { url, ca_bundle, asked, task })
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn allow(
    request: http::Request<Incoming>,
    asked: Arc<AtomicUsize>,
) -> Result<http::Response<Full<bytes::Bytes>>> {
    let review: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?;
    asked.fetch_add(1, Ordering::Relaxed);
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], "allowed": true}});
    let body = Full::new(bytes::Bytes::from(answer.to_string()));
    Ok(http::Response::builder().header("Content-Type", "application/json").body(body)?)
}
