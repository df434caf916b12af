//! Tokens of ServiceAccounts: who gets one, what it says, and for how long it is good.

use axum::body::Body;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Server, pod};
use crate::{auth::token::TokenAuthenticator, identity::Identity};

const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/default/token";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const URL: &str = "https://kubernetes.default.svc.cluster.local";

fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

async fn review(server: &Server, token: &str, audiences: Value) -> Value {
    let spec = json!({"token": token, "audiences": audiences});
    let answer =
        server.post(REVIEWS, json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}));
    answer.await.json["status"].clone()
}

async fn on_node(server: &Server, name: &str, node: &str) -> String {
    let mut pod = pod(name);
    pod["spec"]["nodeName"] = node.into();
    let created = server.post(PODS, pod).await;
    assert_eq!(created.code, 201, "{}", created.text);
    created.json["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn bound(pod: &str, uid: &str) -> Value {
    json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}}})
}

#[tokio::test]
async fn a_token_is_issued_reviewed_and_good_for_its_audience_alone() {
    let server = Server::start().await;
    let made = server.post(TOKEN, json!({})).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!((&made.json["kind"], made.name()), (&json!("TokenRequest"), "default"));
    assert_eq!(made.json["spec"], json!({"audiences": [URL], "expirationSeconds": 3600}));
    let token = made.json["status"]["token"].as_str().unwrap();
    let said = claims(token);
    assert_eq!((&said["iss"], &said["aud"]), (&json!(URL), &json!([URL])));
    assert_eq!(said["sub"], "system:serviceaccount:default:default");
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 3600);

    let status = review(&server, token, json!([])).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!([URL])));
    let user = &status["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:default");
    assert_eq!(user["uid"], made.json["metadata"]["uid"]);
    let id = format!("JTI={}", said["jti"].as_str().unwrap());
    assert_eq!(user["extra"], json!({"authentication.kubernetes.io/credential-id": [id]}));
    let tokens = TokenAuthenticator::new(server.api.authorizer());
    assert_eq!(tokens.identify_own(token).unwrap().unwrap().identity.name, "system:serviceaccount:default:default");

    let vault = server.post(TOKEN, json!({"spec": {"audiences": ["vault", "other"]}})).await;
    let token = vault.json["status"]["token"].as_str().unwrap();
    assert!(tokens.identify_own(token).unwrap().is_err(), "it is not for this server");
    let words = format!(
        "[invalid bearer token, token audiences [\"vault\" \"other\"] is invalid for the target audiences [{URL:?}]]"
    );
    assert_eq!(review(&server, token, json!([])).await["error"], words);
    assert_eq!(review(&server, token, json!(["x", "vault"])).await["audiences"], json!(["vault"]));
    assert_eq!(review(&server, "nonsense", json!([])).await["error"], "invalid bearer token");

    let gone = server.post(&TOKEN.replace("accounts/default", "accounts/none"), json!({})).await;
    assert_eq!(gone.message(), "serviceaccounts \"none\" not found");
    let typed = json!({"spec": {"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let refused = server.post(TOKEN, typed).await;
    assert_eq!(refused.message(), "cannot bind token to object of type apps/v1, Kind=Deployment");
    assert_eq!(server.get(TOKEN).await.code, 405);
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_pod_goes_with_it() {
    let server = Server::start().await;
    let uid = on_node(&server, "p", "n1").await;
    let mut request = bound("p", &uid);
    request["spec"]["expirationSeconds"] = 3607.into();
    let made = server.post(TOKEN, request).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let token = made.json["status"]["token"].as_str().unwrap();
    let said = claims(token);
    assert_eq!(said["kubernetes.io"]["pod"], json!({"name": "p", "uid": uid}));
    assert_eq!(said["kubernetes.io"]["node"], json!({"name": "n1"}));
    assert_eq!(said["kubernetes.io"]["warnafter"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 3607);
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 365 * 24 * 3600);
    assert_eq!(review(&server, token, json!([])).await["authenticated"], true);
    let stale = server.post(TOKEN, bound("p", "other")).await;
    assert_eq!(stale.code, 409, "{}", stale.text);
    assert_eq!(server.delete(&format!("{PODS}/p"), json!({"gracePeriodSeconds": 0})).await.code, 200);
    let words = "[invalid bearer token, service account token has been invalidated]";
    assert_eq!(review(&server, token, json!([])).await["error"], words);
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_own_pods_alone() {
    let server = Server::start().await;
    let node = Identity::authenticated("system:node:n1".into(), vec!["system:nodes".into()]);
    let (own, others) = (on_node(&server, "own", "n1").await, on_node(&server, "others", "n2").await);
    let ask = async |request: Value| {
        let request = Request::builder().method(Method::POST).uri(TOKEN).body(Body::from(request.to_string()));
        let answer = server.api.answer_as(node.clone(), request.unwrap()).await;
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&body).unwrap()
    };
    let given = ask(bound("own", &own)).await;
    assert!(given["status"]["token"].is_string(), "{given}");
    let refused = "serviceaccounts \"default\" is forbidden: ";
    for (request, why) in [
        (json!({}), "node requested token not bound to a pod"),
        (bound("own", ""), "node requested token with a pod binding without a uid"),
        (bound("others", &others), "node requested token bound to a pod scheduled on a different node"),
    ] {
        assert_eq!(ask(request).await["message"], format!("{refused}{why}"));
    }
    let mut vault = bound("own", &own);
    vault["spec"]["audiences"] = json!(["vault"]);
    let words = "audience \"vault\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for \
                 this audience";
    assert_eq!(ask(vault).await["message"], format!("{refused}{words}"));
}

#[tokio::test]
async fn others_find_the_key_that_verifies_tokens() {
    let server = Server::start().await;
    let configuration = server.get("/.well-known/openid-configuration").await;
    assert_eq!(configuration.json["issuer"], URL);
    assert_eq!(configuration.json["jwks_uri"], "https://127.0.0.1:6443/openid/v1/jwks");
    let keys = server.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let token = server.post(TOKEN, json!({})).await;
    let token = token.json["status"]["token"].as_str().unwrap();
    let header = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(keys.json["keys"][0]["kid"], header["kid"]);
    // As a stranger verifies it.
    let number = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(keys.json["keys"][0][name].as_str().unwrap()).unwrap();
    let point = [vec![4], number("x"), number("y")].concat();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    key.verify(signed.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}
