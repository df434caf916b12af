//! Requests with credentials of others through the gate: tokens of issuers and webhooks on the loopback, and headers of
//! front proxies.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use axum::body::Body;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    api::open_store,
    auth::{
        authorizer::ChainLink,
        gate::{Gate, Handler},
        jwt::{
            key::SigningAlgorithm::Es256,
            tests::issuer::{TestIssuer, TestKey, write_configuration},
        },
        options::{AuthenticationOptions, TokenWebhookOptions},
        outside::{
            places::{NoPlace, OutsideLimits, OutsidePlaces},
            review::OutsideReviewVersion,
        },
        setup::authentication::AuthenticationSetup,
    },
    kinds::Registry,
    metrics::Metrics,
    request::RequestInfo,
    store::Store,
    webhook::{KubeconfigClient, Network, tests::TestServer},
};

/// Answers with the user; a watch without end.
struct WhoAmI;

#[async_trait::async_trait]
impl Handler for WhoAmI {
    fn is_long_running(&self, info: &RequestInfo) -> bool {
        info.verb == crate::request::Verb::Watch
    }

    async fn answer(&self, info: RequestInfo, _: Request<Body>) -> Response<Body> {
        let name = info.user.clone().unwrap().name;
        if self.is_long_running(&info) {
            let first = futures::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(name))]);
            return Response::new(Body::from_stream(first.chain(futures::stream::pending())));
        }
        Response::new(Body::from(name))
    }
}

/// A gate that lets everybody do everything, and who authenticates there.
struct Guarded {
    gate: Gate,
    authorizer: Authorizer,
    setup: AuthenticationSetup,
    _dir: tempfile::TempDir,
}

async fn guarded(options: &AuthenticationOptions) -> Guarded {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open_store(&dir.path().join("store"), &Registry::default()).unwrap());
    let authorizer = Authorizer::new(store);
    authorizer.decide_by(vec![ChainLink::AlwaysAllow]);
    let setup = AuthenticationSetup::read(options, &authorizer, None, Arc::new(Network), false).await.unwrap();
    let metrics = Metrics::default().requests().clone();
    let gate = Gate::new(Arc::new(WhoAmI), authorizer.clone(), metrics, CancellationToken::new())
        .authenticating_by(setup.authenticator.clone())
        .asking_again_every(Duration::from_millis(1));
    Guarded { gate, authorizer, setup, _dir: dir }
}

impl Guarded {
    async fn send(&self, path: &str, token: Option<&str>) -> Response<Body> {
        let from = PeerAddress(SocketAddr::from(([10, 0, 0, 1], 1)));
        let mut request = Request::get(path).extension(from);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.gate.clone().answer(request.body(Body::empty()).unwrap(), Arc::new(None)).await
    }

    /// The user's name, or the code.
    async fn who(&self, token: Option<&str>) -> Result<String, u16> {
        told(self.send("/api/v1/pods", token).await).await
    }
}

/// The user's name, or the code.
async fn told(answer: Response<Body>) -> Result<String, u16> {
    let (code, text) = (answer.status().as_u16(), answer.into_body().collect().await.unwrap().to_bytes());
    if code == 200 { Ok(String::from_utf8(text.to_vec()).unwrap()) } else { Err(code) }
}

/// A server that reviews tokens.
fn reviewer() -> Identity {
    Identity::authenticated("system:serviceaccount:a:gateway".to_owned(), Vec::new())
}

#[tokio::test]
async fn a_token_of_another_issuer_is_a_user_and_a_changed_file_is_used() {
    let (key, dir) = (TestKey::new("1", Es256), tempfile::tempdir().unwrap());
    let (first, second) = (TestIssuer::start(&[&key]).await, TestIssuer::start(&[&key]).await);
    let path = write_configuration(dir.path(), &[first.configuration()]);
    let options = AuthenticationOptions { config_file: Some(path), ..AuthenticationOptions::default() };
    let guarded = guarded(&options).await;
    let stop = CancellationToken::new();
    let run = tokio::spawn(guarded.setup.jwt.clone().run(stop.clone()));
    let (of_first, of_second) = (key.token(Es256, &first.claims()), key.token(Es256, &second.claims()));
    let eventually = async |token: &str| {
        while guarded.who(Some(token)).await != Ok("oidc:jane".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), eventually(&of_first)).await.expect("its keys are fetched");
    assert_eq!(guarded.who(Some(&of_second)).await, Err(401), "nobody knows the issuer");
    assert_eq!(guarded.who(None).await, Ok("system:anonymous".to_owned()));
    let own = [guarded.setup.authenticator.audience().to_owned()];
    let found = guarded.setup.authenticator.review(&reviewer(), &of_first, &own).await.unwrap().unwrap();
    assert_eq!(found.identity.groups, ["oidc:dev", "system:authenticated"]);
    let for_others = guarded.setup.authenticator.review(&reviewer(), &of_first, &["vault".to_owned()]).await.unwrap();
    assert!(for_others.is_err(), "it is for this server alone");

    write_configuration(dir.path(), &[second.configuration()]);
    let reload = guarded.setup.reload.as_ref().unwrap();
    let reloading = async { reload.run(stop.clone()).await };
    tokio::pin!(reloading);
    tokio::select! {
        () = &mut reloading => panic!("it watches"),
        done = tokio::time::timeout(Duration::from_secs(30), eventually(&of_second)) => done.expect("the file is used"),
    }
    assert_eq!(guarded.who(Some(&of_first)).await, Err(401));
    stop.cancel();
    run.await.unwrap();
}

#[tokio::test]
async fn the_own_issuer_cannot_be_configured_and_flags_do_not_go_with_a_file() {
    use crate::auth::{
        account_token::TokenIssuer, options::OidcOptions, pki::TokenKey,
        setup::authentication::AuthenticationSetupError,
    };
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open_store(&dir.path().join("store"), &Registry::default()).unwrap());
    let authorizer = Authorizer::new(store);
    let own = "https://kubernetes.default.svc.cluster.local";
    authorizer.facts().issue_tokens_by(TokenIssuer::new(TokenKey::create().unwrap().0, own.into(), "h:1"));
    let read = async |options: AuthenticationOptions| {
        AuthenticationSetup::read(&options, &authorizer, None, Arc::new(Network), false).await.err().unwrap()
    };
    let jwt = json!({"issuer": {"url": own, "audiences": ["a"]}, "claimMappings": {"username": {"claim": "sub",
        "prefix": ""}}});
    let config_file = Some(write_configuration(dir.path(), &[jwt]));
    let refused = read(AuthenticationOptions { config_file: config_file.clone(), ..Default::default() }).await;
    let AuthenticationSetupError::File { source, .. } = &refused else { panic!("{refused:?}") };
    assert!(source.to_string().contains("URL must not overlap with disallowed issuers"), "{source}");
    let oidc = OidcOptions { issuer_url: Some("https://a".into()), ..OidcOptions::default() };
    let both = read(AuthenticationOptions { config_file, oidc: oidc.clone(), ..Default::default() }).await;
    assert!(matches!(both, AuthenticationSetupError::FileAndFlags));
    let half = read(AuthenticationOptions { oidc, ..Default::default() }).await;
    assert!(matches!(half, AuthenticationSetupError::OidcFlags));
}

/// As `Header.Get` of Go has it, by which kube-apiserver reads the header.
#[tokio::test]
async fn of_two_authorization_headers_the_first_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    std::fs::write(&path, "of-joe,joe,1\nof-ann,ann,2\n").unwrap();
    let options = AuthenticationOptions { token_file: Some(path), ..AuthenticationOptions::default() };
    let guarded = guarded(&options).await;
    for (headers, who) in [
        (["Bearer of-joe", "Bearer of-ann"], Ok("joe")),
        (["Bearer of-joe", "Bearer of-nobody"], Ok("joe")),
        (["Bearer of-nobody", "Bearer of-joe"], Err(401)),
        (["Basic am9lOm9mLWpvZQ==", "Bearer of-joe"], Ok("system:anonymous")),
    ] {
        let request = headers
            .iter()
            .fold(Request::get("/api/v1/pods"), |request, text| request.header(header::AUTHORIZATION, *text));
        let answer = guarded.gate.clone().answer(request.body(Body::empty()).unwrap(), Arc::new(None)).await;
        assert_eq!(told(answer).await, who.map(str::to_owned), "{headers:?}");
    }
}

#[tokio::test]
async fn requests_without_a_credential_are_let_in_where_the_file_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authentication.yaml");
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1beta1", "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]}});
    std::fs::write(&path, file.to_string()).unwrap();
    let options = AuthenticationOptions { config_file: Some(path), ..AuthenticationOptions::default() };
    let by_path = guarded(&options).await;
    assert_eq!(by_path.send("/livez", None).await.status(), 200);
    assert_eq!(by_path.send("/livez/ping", None).await.status(), 401);
    assert_eq!(by_path.send("/api/v1/pods", None).await.status(), 401);
    let nobody = AuthenticationOptions { anonymous: Some(false), ..AuthenticationOptions::default() };
    assert_eq!(guarded(&nobody).await.send("/livez", None).await.status(), 401);
}

/// A webhook that knows the token `good`, answers `slow` when it is told to, and can be away.
struct TokenServer {
    server: TestServer,
    is_away: Arc<AtomicBool>,
    is_revoked: Arc<AtomicBool>,
    released: Arc<Notify>,
    slow: Arc<AtomicUsize>,
    dir: tempfile::TempDir,
}

impl TokenServer {
    async fn start() -> Self {
        let (is_away, released) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let (slow, is_revoked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (away, waits, counted) = (is_away.clone(), released.clone(), slow.clone());
        let revoked = is_revoked.clone();
        let answering = Arc::new(move |_: String, review: Value| {
            let (away, waits, slow) = (away.clone(), waits.clone(), counted.clone());
            let is_revoked = revoked.load(Ordering::SeqCst);
            let answer: futures::future::BoxFuture<'static, (u16, Value)> = Box::pin(async move {
                if away.load(Ordering::SeqCst) {
                    return (503, json!("away"));
                }
                let status = match review["spec"]["token"].as_str().unwrap_or_default() {
                    "good" if !is_revoked => json!({"authenticated": true, "user": {"username": "joe", "uid": "7",
                        "groups": ["ops"], "extra": {"team": ["x"]}}}),
                    "for-vault" => json!({"authenticated": true, "user": {"username": "joe"}, "audiences": ["vault"]}),
                    "broken" => json!({"authenticated": false, "error": "it is broken"}),
                    "slow" => {
                        slow.fetch_add(1, Ordering::SeqCst);
                        waits.notified().await;
                        json!({"authenticated": false})
                    }
                    _ => json!({"authenticated": false}),
                };
                (200, json!({"apiVersion": review["apiVersion"], "kind": "TokenReview", "status": status}))
            });
            answer
        });
        let server = TestServer::start(&["localhost"], answering).await;
        Self { server, is_away, is_revoked, released, slow, dir: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> TokenWebhookOptions {
        let path = self.dir.path().join("kubeconfig");
        let TestServer { port, bundle, .. } = &self.server;
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: \
             a}}}}]\nclusters: [{{name: a, cluster: {{server: \"https://localhost:{port}/review\", \
             certificate-authority-data: {bundle}}}}}]\nusers: [{{name: a, user: {{token: secret}}}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        TokenWebhookOptions { version: OutsideReviewVersion::V1, ..TokenWebhookOptions::new(path) }
    }

    /// The tokens that it was asked about.
    fn asked(&self) -> Vec<String> {
        let bodies = self.server.bodies("/review");
        bodies.iter().map(|body| body["spec"]["token"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn a_webhook_is_asked_once_and_its_answers_are_kept() {
    let server = TokenServer::start().await;
    let options = AuthenticationOptions { token_webhook: Some(server.options()), ..AuthenticationOptions::default() };
    let guarded = guarded(&options).await;
    for _ in 0..3 {
        assert_eq!(guarded.who(Some("good")).await, Ok("joe".to_owned()));
        assert_eq!(guarded.who(Some("bad")).await, Err(401));
        assert_eq!(guarded.who(Some("broken")).await, Err(401));
    }
    assert_eq!(server.asked(), ["good", "bad", "broken"]);
    let sent = server.server.bodies("/review").remove(0);
    let own = guarded.setup.authenticator.audience().to_owned();
    assert_eq!(sent["apiVersion"], "authentication.k8s.io/v1");
    assert_eq!(sent["spec"], json!({"token": "good", "audiences": [own]}));
    assert_eq!(guarded.who(Some("for-vault")).await, Err(401), "it is not for this server");

    let review = async |token: &str, audience: &str| {
        let reviewed = guarded.setup.authenticator.review(&reviewer(), token, &[audience.to_owned()]).await.unwrap();
        reviewed.map_err(|failures| failures.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let joe = review("good", &own).await.unwrap();
    assert_eq!(
        (joe.identity.groups, joe.audiences),
        (vec!["ops".to_owned(), "system:authenticated".into()], vec![own.clone()])
    );
    assert_eq!((&*joe.identity.uid, &joe.identity.extra["team"][..]), ("7", &["x".to_owned()][..]));
    assert_eq!(review("for-vault", "vault").await.unwrap().audiences, ["vault"]);
    assert_eq!(review("broken", &own).await.unwrap_err(), ["it is broken"]);
    assert!(review("good", "vault").await.is_err(), "it names no audience, so it is for this server");
}

#[tokio::test]
async fn a_watch_lasts_while_the_webhook_is_away_and_ends_when_it_refuses() {
    let server = TokenServer::start().await;
    let webhook = TokenWebhookOptions { cache_ttl: Duration::ZERO, ..server.options() };
    let options = AuthenticationOptions { token_webhook: Some(webhook), ..AuthenticationOptions::default() };
    let guarded = guarded(&options).await;
    let mut body = guarded.send("/api/v1/pods?watch=1", Some("good")).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "joe");
    server.is_away.store(true, Ordering::SeqCst);
    let asked = server.asked().len();
    let early = async {
        tokio::select! {
            end = body.frame() => panic!("it ended: {end:?}"),
            () = async { while server.asked().len() < asked + 5 { tokio::task::yield_now().await } } => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(30), early).await.expect("it is asked again and again");
    assert_eq!(guarded.who(Some("good")).await, Err(401), "nobody new comes in");
    server.is_revoked.store(true, Ordering::SeqCst);
    server.is_away.store(false, Ordering::SeqCst);
    let end = tokio::time::timeout(Duration::from_secs(30), body.frame()).await;
    assert!(end.expect("it ends in time").is_none());
}

#[tokio::test]
async fn a_watch_ends_when_its_user_loses_the_right_though_the_webhook_is_away() {
    let server = TokenServer::start().await;
    let webhook = TokenWebhookOptions { cache_ttl: Duration::ZERO, ..server.options() };
    let options = AuthenticationOptions { token_webhook: Some(webhook), ..AuthenticationOptions::default() };
    let guarded = guarded(&options).await;
    let mut body = guarded.send("/api/v1/pods?watch=1", Some("good")).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "joe");
    server.is_away.store(true, Ordering::SeqCst);
    let asked = server.asked().len();
    let away = async {
        tokio::select! {
            end = body.frame() => panic!("it ended: {end:?}"),
            () = async { while server.asked().len() < asked + 2 { tokio::task::yield_now().await } } => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(30), away).await.expect("it is asked in vain");
    guarded.authorizer.decide_by(vec![ChainLink::AlwaysDeny]);
    let end = tokio::time::timeout(Duration::from_secs(60), body.frame()).await;
    assert!(end.expect("it ends in time").is_none());
}

#[test]
fn what_the_issuer_says_of_its_token_decides_though_the_webhook_is_away() {
    let expired = || TokenFailure::from(JwtError::from(VerifyError::Expired("then".into())));
    let unknown = || TokenFailure::from(JwtError::NotInitialized);
    let away = || TokenFailure::from(TokenWebhookError::TooLong);
    let full = || TokenFailure::from(TokenWebhookError::NoPlace(NoPlace));
    for failures in [vec![expired(), away()], vec![expired(), full()], vec![expired()], vec![]] {
        assert!(matches!(unauthenticated(&failures), Unauthenticated::Refused), "{failures:?}");
    }
    assert!(matches!(unauthenticated(&[unknown(), away()]), Unauthenticated::Undecided));
    assert!(matches!(unauthenticated(&[away()]), Unauthenticated::Undecided));
    assert!(matches!(unauthenticated(&[unknown(), full()]), Unauthenticated::Failed(status) if status.code == 429));
}

#[tokio::test]
async fn few_questions_of_strangers_are_under_way_at_a_time() {
    let server = TokenServer::start().await;
    let options = TokenWebhookOptions { cache_ttl: Duration::ZERO, ..server.options() };
    let client = KubeconfigClient::read(&options.config_file).await.unwrap();
    let limits = OutsideLimits { of_strangers: 8, of_one_address: 1, of_known: 1, of_reviewers: 4 };
    let webhook = TokenWebhook::new(client, options.version, options.cache_ttl).limited_to(OutsidePlaces::new(limits));
    let guarded = guarded(&AuthenticationOptions::default()).await;
    let authorizer =
        Authorizer::new(Arc::new(open_store(&guarded._dir.path().join("other"), &Registry::default()).unwrap()));
    let authenticator = Authenticator::knowing(Known {
        tokens: TokenAuthenticator::new(&authorizer),
        static_tokens: None,
        jwt: None,
        webhook: Some(webhook),
        front_proxies: None,
        anonymous: AnonymousConfiguration::default(),
    });
    let guarded = Guarded { gate: guarded.gate.clone().authenticating_by(authenticator), ..guarded };
    assert_eq!(guarded.who(Some("good")).await, Ok("joe".to_owned()));
    let slow = async { guarded.who(Some("slow")).await };
    let others = async {
        while server.slow.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let refused = guarded.send("/api/v1/pods", Some("another")).await;
        assert_eq!(refused.status().as_u16(), 429, "the address has its question under way");
        assert_eq!(refused.headers()["retry-after"], "1", "clients come again only if they are told when");
        assert_eq!(guarded.who(Some("good")).await, Ok("joe".to_owned()), "this one was good before");
        server.released.notify_one();
    };
    let (slow, ()) = tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(slow, others) }).await.unwrap();
    assert_eq!(slow, Err(401));
    assert_eq!(guarded.who(Some("good")).await, Ok("joe".to_owned()));
    assert_eq!(server.asked(), ["good", "slow", "good", "good"]);
}

#[tokio::test]
async fn token_reviews_take_no_places_of_users_and_too_many_are_told_to_come_again() {
    let server = TokenServer::start().await;
    let options = TokenWebhookOptions { cache_ttl: Duration::ZERO, ..server.options() };
    let client = KubeconfigClient::read(&options.config_file).await.unwrap();
    let limits = OutsideLimits { of_strangers: 1, of_one_address: 1, of_known: 0, of_reviewers: 2 };
    let webhook = TokenWebhook::new(client, options.version, options.cache_ttl).limited_to(OutsidePlaces::new(limits));
    let guarded = guarded(&AuthenticationOptions::default()).await;
    let authenticator = Authenticator::knowing(Known {
        tokens: TokenAuthenticator::new(&guarded.authorizer),
        static_tokens: None,
        jwt: None,
        webhook: Some(webhook),
        front_proxies: None,
        anonymous: AnonymousConfiguration::default(),
    });
    let own = [authenticator.audience().to_owned()];
    let guarded = Guarded { gate: guarded.gate.clone().authenticating_by(authenticator.clone()), ..guarded };
    let reviewed = async |token: &str| authenticator.review(&reviewer(), token, &own).await.unwrap();
    let slow = reviewed("slow");
    let others = async {
        while server.slow.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let full = reviewed("another").await.expect_err("one reviewer takes half of the places");
        assert_eq!(no_place(&full), Some(NoPlace));
        assert_eq!(guarded.who(Some("good")).await, Ok("joe".to_owned()), "what users show is asked about");
        server.released.notify_one();
    };
    let (slow, ()) = tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(slow, others) }).await.unwrap();
    assert_eq!(no_place(&slow.expect_err("it is bad")), None);
}
