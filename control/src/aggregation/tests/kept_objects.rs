//! The objects that the aggregation keeps: APIServices of what is served here, and whom extension servers trust.

use super::{super::kept_object::Repair, *};

#[tokio::test]
async fn groups_of_custom_resources_have_an_api_service_as_long_as_they_are_served() {
    let setting = Setting::start().await;
    let versions = json!([version("v1", true, json!({})), version("v2", false, json!({}))]);
    setting.server.define(definition(versions)).await;
    let path = format!("{API_SERVICES}/v1.example.com");
    let made = setting.server.wait(&path, "made", |object| object["kind"] == "APIService").await;
    assert_eq!(made["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(
        made["spec"],
        json!({"group": "example.com", "version": "v1", "groupPriorityMinimum": 1000,
        "versionPriority": 100})
    );
    assert_eq!(made["status"]["conditions"][0]["reason"], "Local");
    setting
        .server
        .wait(&format!("{API_SERVICES}/v2.example.com"), "made", |object| object["kind"] == "APIService")
        .await;

    setting.server.merge(&path, json!({"spec": {"versionPriority": 7}})).await;
    setting.server.wait(&path, "repaired", |object| object["spec"]["versionPriority"] == 100).await;
    setting.server.delete(&path, json!({})).await;
    setting.server.wait(&path, "made again", |object| object["kind"] == "APIService").await;
    setting.server.delete(&format!("{DEFINITIONS}/widgets.example.com"), json!({})).await;
    for version in ["v1", "v2"] {
        let path = format!("{API_SERVICES}/{version}.example.com");
        setting.server.wait(&path, "gone", |answer| answer["reason"] == "NotFound").await;
    }
    setting.stop().await;
}

#[tokio::test]
async fn extension_servers_learn_whom_to_trust() {
    let setting = Setting::start().await;
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let made = setting.server.wait(path, "made", |object| object["kind"] == "ConfigMap").await;
    assert_eq!(made["data"]["requestheader-client-ca-file"], setting.authority.certificate_pem());
    setting.server.delete(path, json!({})).await;
    setting.server.wait(path, "made again", |object| object["kind"] == "ConfigMap").await;
    setting.server.merge(path, json!({"data": {"requestheader-group-headers": null}})).await;
    let groups = "requestheader-group-headers";
    setting.server.wait(path, "repaired", |object| object["data"][groups] == "[\"X-Remote-Group\"]").await;

    // Another authority: the old one is trusted as well as long as it is good.
    let old = setting.authority.certificate_pem();
    let new = Authority::create_named("front-proxy", OffsetDateTime::now_utc()).unwrap().0;
    setting.authorities.send_modify(|authorities| authorities.front_proxy = new.certificate_pem().to_owned());
    let both = format!("{old}{}", new.certificate_pem());
    setting.server.wait(path, "both", |object| object["data"]["requestheader-client-ca-file"] == both.as_str()).await;
    setting.stop().await;
}

/// A client whose requests are all answered with this code.
fn answering(code: u16) -> Client {
    let service = tower::service_fn(move |_: Request<kube::client::Body>| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "m"});
        let response =
            http::Response::builder().status(code).body(kube::client::Body::from(status.to_string().into_bytes()));
        std::future::ready(Ok::<_, std::convert::Infallible>(response.unwrap()))
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn a_conflict_is_tried_again_but_for_a_deletion() {
    let answer =
        async |code, repair: Repair| repair.carry_out(&answering(code), "/api/v1/namespaces/n/configmaps", "m").await;
    let delete = || Repair::Delete { uid: "u".into() };
    for code in [404, 409] {
        assert!(answer(code, Repair::Create(json!({}))).await.is_err(), "{code}");
        assert!(answer(code, Repair::Replace(json!({}))).await.is_err(), "{code}");
        assert!(answer(code, delete()).await.is_ok(), "{code}");
    }
    assert!(answer(500, delete()).await.is_err());
}
