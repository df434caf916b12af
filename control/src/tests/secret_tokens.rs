//! Tokens in Secrets: filled, good for requests, labelled, and gone with their account.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::body::Body;
use http::{Request, Response};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::DeleteParams;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::auth::{secret_token_use::UsedSecrets, token::TokenAuthenticator};

#[tokio::test]
async fn a_secret_holds_a_token_of_its_account_as_long_as_both_are_there() {
    let cluster = Cluster::start(0).await;
    let accounts = cluster.api::<ServiceAccount>();
    create::<ServiceAccount>(&cluster.client, "default", json!({"metadata": {"name": "robot"}})).await;
    let annotations = json!({"kubernetes.io/service-account.name": "robot"});
    const TYPE: &str = "kubernetes.io/service-account-token";
    let secret = |name: &str| json!({"metadata": {"name": name, "annotations": annotations}, "type": TYPE});
    create::<Secret>(&cluster.client, "default", secret("t")).await;
    let data = |secret: &Secret, key: &str| -> Option<String> {
        let value = secret.data.as_ref()?.get(key)?;
        Some(String::from_utf8(value.0.clone()).expect("text"))
    };
    let filled = cluster.wait::<Secret>("t", "filled", |secret| data(secret, "token").is_some()).await;
    assert_eq!(data(&filled, "namespace").as_deref(), Some("default"));
    assert!(data(&filled, "ca.crt").expect("a certificate").starts_with("-----BEGIN CERTIFICATE-----"));
    let account = accounts.get("robot").await.expect("an account");
    let annotations = filled.metadata.annotations.clone().expect("annotations");
    assert_eq!(annotations.get("kubernetes.io/service-account.uid"), account.metadata.uid.as_ref());

    let tokens = TokenAuthenticator::new(cluster.api.authorizer());
    let token = data(&filled, "token").expect("a token");
    let identify = || tokens.identify_own(&token).expect("an answer").ok().map(|found| found.identity);
    assert_eq!(identify().expect("good").name, "system:serviceaccount:default:robot");
    let elsewhere = tokens.identify_for(&token, &["elsewhere".into()]).expect("an answer").expect_err("another's");
    assert!(elsewhere.expect("told").to_string().starts_with("token audiences [\"https://issuer\"] is invalid for"));
    let used = cluster.api.authorizer().facts().used_secrets().clone();
    let stop = CancellationToken::new();
    let labelling = tokio::spawn(used.run(cluster.api.store_handle(), cluster.client.clone(), stop.clone()));
    let label = "kubernetes.io/legacy-token-last-used";
    cluster
        .wait::<Secret>("t", "labelled", |secret| secret.metadata.labels.iter().any(|l| l.contains_key(label)))
        .await;
    stop.cancel();
    labelling.await.expect("an end");

    // One without an account goes at once; one whose account goes, goes with it.
    let secrets = cluster.api::<Secret>();
    let mut orphan = secret("orphan");
    orphan["metadata"]["annotations"]["kubernetes.io/service-account.name"] = "nobody".into();
    create::<Secret>(&cluster.client, "default", orphan).await;
    accounts.delete("robot", &DeleteParams::default()).await.expect("deleted");
    for name in ["orphan", "t"] {
        let gone = async {
            while secrets.get_opt(name).await.expect("an answer").is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("it goes");
    }
    assert!(identify().is_none());
    cluster.stop().await;
}

#[tokio::test]
async fn a_secret_that_is_deleted_leaves_the_list_of_its_account() {
    let cluster = Cluster::start(0).await;
    let account = json!({"metadata": {"name": "robot"}, "secrets": [{"name": "t"}, {"name": "other"}]});
    create::<ServiceAccount>(&cluster.client, "default", account).await;
    let annotations = json!({"kubernetes.io/service-account.name": "robot"});
    let secret = json!({"metadata": {"name": "t", "annotations": annotations},
        "type": "kubernetes.io/service-account-token"});
    create::<Secret>(&cluster.client, "default", secret).await;
    let filled = |secret: &Secret| secret.data.iter().any(|data| data.contains_key("token"));
    cluster.wait::<Secret>("t", "filled", filled).await;
    cluster.api::<Secret>().delete("t", &DeleteParams::default()).await.expect("deleted");
    let left = |account: &ServiceAccount| account.secrets.as_ref().is_some_and(|secrets| secrets.len() == 1);
    let account = cluster.wait::<ServiceAccount>("robot", "without it", left).await;
    assert_eq!(account.secrets.expect("a list")[0].name.as_deref(), Some("other"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_secret_whose_label_hangs_does_not_hold_up_the_others() {
    let cluster = Cluster::start(0).await;
    let names: Vec<String> = (0..8).map(|at| format!("t{at}")).collect();
    for name in &names {
        create::<Secret>(&cluster.client, "default", json!({"metadata": {"name": name}})).await;
    }
    let api = cluster.api.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let api = api.clone();
        async move {
            if !request.uri().path().ends_with("/t7") {
                std::future::pending::<()>().await;
            }
            let answer = api.answer_as(crate::identity::Identity::control("test"), request.map(Body::new)).await;
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let (used, stop) = (UsedSecrets::default(), CancellationToken::new());
    let client = kube::Client::new(service, "default");
    let labelling = tokio::spawn(used.clone().run(cluster.api.store_handle(), client, stop.clone()));
    for name in &names {
        used.add(format!("default/{name}"));
    }
    cluster.wait::<Secret>("t7", "labelled", |secret| secret.metadata.labels.is_some()).await;
    labelling.abort();
    cluster.stop().await;
}

#[tokio::test]
async fn uses_of_a_token_do_not_hasten_a_label_that_fails() {
    let cluster = Cluster::start(0).await;
    create::<Secret>(&cluster.client, "default", json!({"metadata": {"name": "t"}})).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let service = tower::service_fn(move |_: Request<kube::client::Body>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let refused = Response::builder().status(500).body(Body::empty());
        std::future::ready(refused)
    });
    let (used, stop) = (UsedSecrets::default(), CancellationToken::new());
    let client = kube::Client::new(service, "default");
    let labelling = tokio::spawn(used.clone().run(cluster.api.store_handle(), client, stop.clone()));
    let begun = std::time::Instant::now();
    // Each use that hastened it would be a try.
    let mut uses = 0;
    while tries.load(Ordering::SeqCst) < 3 {
        assert!(begun.elapsed() < PATIENCE, "it is tried again");
        used.add("default/t".to_owned());
        uses += 1;
        tokio::task::yield_now().await;
    }
    assert!(
        begun.elapsed() >= std::time::Duration::from_millis(15),
        "5 and 10 ms lie between three tries: {uses} uses"
    );
    stop.cancel();
    labelling.await.expect("an end");
    cluster.stop().await;
}

#[tokio::test]
async fn a_secret_that_names_what_can_be_no_account_goes() {
    let cluster = Cluster::start(0).await;
    create::<ServiceAccount>(&cluster.client, "default", json!({"metadata": {"name": "robot"}})).await;
    for name in ["robot/token", "robot?a=b", "../serviceaccounts/robot"] {
        let annotations = json!({"kubernetes.io/service-account.name": name});
        let secret = json!({"metadata": {"name": "t", "annotations": annotations},
            "type": "kubernetes.io/service-account-token"});
        create::<Secret>(&cluster.client, "default", secret).await;
        let secrets = cluster.api::<Secret>();
        let gone = async {
            while secrets.get_opt("t").await.expect("an answer").is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("it goes");
    }
    cluster.stop().await;
}
