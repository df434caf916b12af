//! Signing requests of nodes, from the request to the certificate.

use std::time::Duration;

use fairlead_client::node_silence::{NODE_REPORTS, silent_in};
use k8s_openapi::{
    ByteString,
    api::{certificates::v1::CertificateSigningRequest, core::v1::Node},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    runtime::wait::await_condition,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

use super::{Cluster, PATIENCE, create};
use crate::auth::Identity;

fn request(name: &str, signer: &str, usage: &str, names: &[&str]) -> CertificateSigningRequest {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("valid names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "system:node:n1");
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    let key = KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).and_then(|request| request.pem()).expect("a request");
    let csr = json!({"metadata": {"name": name}, "spec": {"signerName": signer, "request": ByteString(pem.into_bytes()),
        "usages": ["digital signature", usage]}});
    serde_json::from_value(csr).expect("a valid object")
}

async fn wait(cluster: &Cluster, name: &str, is: impl Fn(&CertificateSigningRequest) -> bool) {
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.client.clone());
    let wanted = await_condition(requests, name, move |csr: Option<&CertificateSigningRequest>| csr.is_some_and(&is));
    tokio::time::timeout(PATIENCE, wanted).await.expect("in time").expect("a watch");
}

fn is_signed(csr: &CertificateSigningRequest) -> bool {
    csr.status.as_ref().is_some_and(|s| s.certificate.is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serving_certificate_waits_for_its_node_and_is_signed_when_that_has_its_address() {
    let cluster = Cluster::start(0).await;
    let node = Identity::authenticated("system:node:n1".into(), vec!["system:nodes".into()]);
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.client_of(node));
    let params = PostParams::default();
    let serving = request("serving", "kubernetes.io/kubelet-serving", "server auth", &["192.0.2.1"]);
    requests.create(&params, &serving).await.expect("created");
    let client = request("client", "kubernetes.io/kube-apiserver-client-kubelet", "client auth", &[]);
    requests.create(&params, &client).await.expect("created");
    wait(&cluster, "client", is_signed).await;
    let undecided = requests.get("serving").await.expect("is there");
    assert!(undecided.status.is_none_or(|s| s.conditions.is_none()));

    create::<Node>(&cluster.client, "", json!({"metadata": {"name": "n1"}})).await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(status)).await.expect("a node status");
    wait(&cluster, "serving", is_signed).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_as_a_node_that_is_there_learns_when_it_would_count_as_silent() {
    // Its node is there before the controllers, which therefore know it.
    let cluster = Cluster::with_grace(1, Duration::from_secs(40)).await;
    let bootstrappers = vec!["system:bootstrappers".into(), "system:bootstrappers:fairlead:node".into()];
    let joiner = Identity::authenticated("system:bootstrap:abcdef".into(), bootstrappers);
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.client_of(joiner));
    let asked = request("asked", "kubernetes.io/kube-apiserver-client-kubelet", "client auth", &[]);
    requests.create(&PostParams::default(), &asked).await.expect("created");
    let is_denied = |csr: &CertificateSigningRequest| {
        let denied = csr.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "Denied");
        denied.is_some_and(|condition| condition.reason.as_deref() == Some(NODE_REPORTS))
    };
    wait(&cluster, "asked", is_denied).await;
    let left = silent_in(&requests.get("asked").await.expect("is there")).expect("how long is left");
    assert!(left > Duration::ZERO && left <= Duration::from_secs(40), "{left:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_may_say_more_in_annotations_and_nothing_else() {
    let cluster = Cluster::start(0).await;
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.client.clone());
    let asked = request("asked", "example.com/mine", "client auth", &[]);
    requests.create(&PostParams::default(), &asked).await.expect("created");
    let patch = Patch::Merge(
        json!({"metadata": {"annotations": {"by": "me"}}, "spec": {"signerName": "example.com/x"},
        "status": {"certificate": "bm9uZQ==", "conditions": [{"type": "Approved", "status": "True", "reason": "e2e"}]}}),
    );
    let approved = requests.patch_approval("asked", &PatchParams::default(), &patch).await.expect("approved");
    assert_eq!(approved.metadata.annotations.expect("annotations")["by"], "me");
    assert_eq!(approved.spec.signer_name, "example.com/mine");
    let status = approved.status.expect("a status");
    assert!(status.certificate.is_none());
    assert_eq!(status.conditions.expect("conditions")[0].type_, "Approved");
    cluster.stop().await;
}
