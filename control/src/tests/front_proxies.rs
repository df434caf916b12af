//! A control service with a front proxy before it, and a file of tokens.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, config::AuthInfo, runtime::wait::await_condition};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::{Value, json};

use super::PATIENCE;
use crate::{
    Config,
    auth::options::{AuthenticationOptions, AuthorizationMode, AuthorizationOptions, RequestHeaderOptions},
};

/// A client that shows this, and trusts the service's authority.
fn client(address: std::net::SocketAddr, authority: &[u8], shown: AuthInfo) -> Client {
    let mut config = kube::Config::new(format!("https://{address}").parse().expect("a URL"));
    config.root_cert = Some(vec![pem::parse(authority).expect("PEM").into_contents()]);
    config.auth_info = shown;
    config.connect_timeout = Some(Duration::from_secs(30));
    Client::try_from(config).expect("a client")
}

/// Who a client is, or the code.
async fn who(client: &Client, headers: &[(&str, &str)]) -> Result<Value, u16> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let mut request =
        Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(review.to_string().into_bytes()).expect("a request");
    match client.request::<Value>(request).await {
        Ok(answer) => Ok(answer["status"]["userInfo"].clone()),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_proxy_says_who_asks_and_extension_servers_learn_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority_of_proxies = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    };
    let issuer = authority_of_proxies("proxies");
    let certificate_by = |issuer: &CertifiedIssuer<'_, KeyPair>, name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, issuer).expect("a certificate").pem();
        AuthInfo {
            client_certificate_data: Some(BASE64_STANDARD.encode(signed)),
            client_key_data: Some(BASE64_STANDARD.encode(key.serialize_pem()).into()),
            ..AuthInfo::default()
        }
    };
    let certificate = |name: &str| certificate_by(&issuer, name);
    let path = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let list = |text: &str| vec![text.to_owned()];
    let mut config = Config::new(dir.path().join("data"));
    config.bind = ([127, 0, 0, 1], 0).into();
    config.api_only = true;
    config.authentication = AuthenticationOptions {
        anonymous: Some(false),
        token_file: Some(path("tokens.csv", "secret,joe,7,\"ops,dev\"\n")),
        request_header: RequestHeaderOptions {
            client_ca_file: Some(path("proxies.crt", &issuer.pem())),
            allowed_names: list("gateway"),
            username_headers: list("X-Remote-User"),
            group_headers: list("X-Remote-Group"),
            extra_headers_prefix: list("X-Remote-Extra-"),
            uid_headers: list("X-Remote-Uid"),
        },
        ..AuthenticationOptions::default()
    };
    let modes = vec![AuthorizationMode::Node, AuthorizationMode::Rbac];
    config.authorization = AuthorizationOptions { modes, ..AuthorizationOptions::default() };
    let running = crate::start(config.clone()).await.expect("a start");
    let authority = std::fs::read(config.data_dir.join("pki/ca.crt")).expect("an authority");
    let client = |shown: AuthInfo| client(running.address(), &authority, shown);

    let gateway = client(certificate("gateway"));
    let jane = [("X-Remote-User", "jane"), ("X-Remote-Group", "dev"), ("X-Remote-Extra-Team", "a")];
    let told = json!({"username": "jane", "groups": ["dev", "system:authenticated"], "extra": {"team": ["a"]}});
    assert_eq!(who(&gateway, &jane).await, Ok(told));
    assert_eq!(who(&gateway, &[]).await, Err(401), "it is nobody itself");
    let other = client(certificate("other"));
    assert_eq!(who(&other, &jane).await, Err(401), "its name is not allowed");
    assert_eq!(who(&client(AuthInfo::default()), &jane).await, Err(401), "whoever has no certificate is not believed");
    let token = AuthInfo { token: Some("secret".to_owned().into()), ..AuthInfo::default() };
    let joe = json!({"username": "joe", "uid": "7", "groups": ["ops", "dev", "system:authenticated"]});
    assert_eq!(who(&client(token), &jane).await, Ok(joe), "nor is a user");

    let maps: Api<ConfigMap> = Api::namespaced(running.client(), "kube-system");
    let proxies = issuer.pem();
    let tells = await_condition(maps, "extension-apiserver-authentication", move |map: Option<&ConfigMap>| {
        let data = map.and_then(|map| map.data.as_ref());
        data.is_some_and(|data| {
            let authorities = &data["requestheader-client-ca-file"];
            authorities.contains(proxies.trim().lines().nth(1).expect("a line"))
                && authorities.matches("BEGIN").count() == 2
                && data["requestheader-allowed-names"] == "[\"front-proxy-client\",\"gateway\"]"
                && data["requestheader-username-headers"] == "[\"X-Remote-User\"]"
        })
    });
    tokio::time::timeout(PATIENCE, tells).await.expect("in time").expect("a watch");

    // Another authority takes the place of the first.
    let next = authority_of_proxies("next proxies");
    path("proxies.crt", "garbage");
    assert!(who(&gateway, &jane).await.is_ok());
    path("proxies.crt", &next.pem());
    let believed = async {
        // Each over a connection of its own: a proxy is recognised when it comes.
        while who(&client(certificate_by(&next, "gateway")), &jane).await.is_err() {}
    };
    tokio::time::timeout(PATIENCE, believed).await.expect("in time");
    assert_eq!(who(&gateway, &jane).await, Err(401), "its authority is trusted no more");
    let maps: Api<ConfigMap> = Api::namespaced(running.client(), "kube-system");
    let tells = await_condition(maps, "extension-apiserver-authentication", move |map: Option<&ConfigMap>| {
        let data = map.and_then(|map| map.data.as_ref());
        data.is_some_and(|data| {
            data["requestheader-client-ca-file"].contains(next.pem().trim().lines().nth(1).expect("a line"))
        })
    });
    tokio::time::timeout(PATIENCE, tells).await.expect("in time").expect("a watch");
    running.shutdown().await;
}
