//! Who gets in and how far: every kind of credential against a real control service over real TLS.

use std::{
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use fairlead_control::auth::pki::Issued;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};

use crate::{
    control_alone::{ControlAlone, ask, expect, issue, wait_for},
    kit::{Result, cluster::FAIRLEAD, run},
    suite::TestAlone,
};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// Names and bodies, for `main`.
pub const TESTS: &[TestAlone] = &[
    ("security::without_a_credential_nothing_is_readable", || run_async(nothing_without_credential)),
    ("security::a_foreign_or_expired_certificate_is_unauthenticated", || run_async(bad_certificates)),
    ("security::a_join_token_allows_joining_only_and_expires", || run_async(join_tokens)),
    ("security::a_node_joins_and_accesses_only_its_own_objects", || run_async(node_joins)),
    ("security::a_restart_keeps_the_authority_and_its_certificates", || run_async(restart_keeps_authority)),
    ("security::keys_that_others_can_read_keep_the_service_from_starting", || run_async(open_keys)),
    ("security::a_second_service_on_the_same_data_is_refused", || run_async(second_service)),
];

fn run_async<F: Future<Output = Result>>(test: impl Fn(tempfile::TempDir) -> F) -> Result {
    let dir = tempfile::Builder::new().prefix("flauth-").tempdir()?;
    tokio::runtime::Runtime::new()?.block_on(test(dir))
}

async fn nothing_without_credential(dir: tempfile::TempDir) -> Result {
    let control = ControlAlone::start(dir.path()).await?;
    let (admin, anonymous) = (control.admin()?, control.anonymous()?);
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        expect(&anonymous, 200, "GET", path, None).await?;
    }
    let mut paths: Vec<String> =
        ["/", "/api", "/api/v1", "/apis", "/openapi/v2", "/openapi/v3", "/metrics", "/nothing/here"]
            .map(Into::into)
            .into();
    for group_version in group_versions(&admin).await? {
        let list = expect(&admin, 200, "GET", &group_version, None).await?;
        let names = list["resources"].as_array().into_iter().flatten().filter_map(|r| r["name"].as_str());
        paths.extend(names.map(|name| format!("{group_version}/{name}")));
        paths.push(group_version);
    }
    if paths.len() < 30 {
        return Err(format!("discovery names so few paths that this proves little: {paths:?}").into());
    }
    paths.push("/api/v1/namespaces/kube-system/secrets".into());
    paths.push("/api/v1/pods?watch=true".into());
    for path in &paths {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = expect(&anonymous, 403, method, path, None).await?;
            if answer["kind"] != "Status" || answer["reason"] != "Forbidden" {
                return Err(format!("{method} {path}: {answer}").into());
            }
        }
    }
    for token in ["abcdef.0123456789abcdef", "nonsense"] {
        expect(&control.with_token(token)?, 401, "GET", "/api/v1/pods", None).await?;
    }
    // No token at all, as in Kubernetes.
    expect(&control.with_token("")?, 403, "GET", "/api/v1/pods", None).await?;
    Ok(())
}

async fn group_versions(admin: &kube::Client) -> Result<Vec<String>> {
    let groups = expect(admin, 200, "GET", "/apis", None).await?;
    let versions = groups["groups"].as_array().into_iter().flatten().flat_map(|g| g["versions"].as_array().cloned());
    let paths = versions.flatten().filter_map(|v| v["groupVersion"].as_str().map(|v| format!("/apis/{v}")));
    Ok(paths.chain(["/api/v1".to_owned()]).collect())
}

async fn bad_certificates(dir: tempfile::TempDir) -> Result {
    let control = ControlAlone::start(dir.path()).await?;
    let now = SystemTime::now();
    let (foreign, _) = fairlead_control::auth::pki::Authority::create(now.into())?;
    let masters = Some("system:masters");
    for issued in [
        issue(&foreign, "kubernetes-admin", masters, now)?,
        issue(&control.authority()?, "kubernetes-admin", masters, now - Duration::from_secs(7200))?,
        self_signed()?,
    ] {
        let answer = expect(&control.with_certificate(&issued)?, 401, "GET", "/api/v1/pods", None).await?;
        if answer["reason"] != "Unauthorized" {
            return Err(format!("{answer}").into());
        }
    }
    let nobody = control.issue("joe", None)?;
    let answer = expect(&nobody, 403, "GET", "/api/v1/namespaces/default/pods/x", None).await?;
    let wanted =
        r#"pods "x" is forbidden: User "joe" cannot get resource "pods" in API group "" in the namespace "default""#;
    if answer["message"] != wanted {
        return Err(format!("{answer}").into());
    }
    expect(&nobody, 200, "GET", "/api/v1", None).await?;
    expect(&control.issue("root", masters)?, 200, "GET", "/api/v1/pods", None).await.map(drop)
}

fn self_signed() -> Result<Issued> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kubernetes-admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let key = KeyPair::generate()?;
    Ok(Issued { certificate_pem: params.self_signed(&key)?.pem(), key_pem: key.serialize_pem() })
}

async fn join_tokens(dir: tempfile::TempDir) -> Result {
    let control = ControlAlone::start(dir.path()).await?;
    let admin = control.admin()?;
    let token = new_token(&control)?;
    let bearer = token.rsplit_once('.').map(|(bearer, _)| bearer).ok_or("a token without a hash")?;
    let joiner = control.with_token(bearer)?;
    for path in ["/api/v1/secrets", "/api/v1/nodes", "/api/v1/pods", REQUESTS] {
        expect(&joiner, 403, "GET", path, None).await?;
    }
    let other = asked_for("other", "kubernetes.io/kube-apiserver-client-kubelet", "client auth", &[])?.0;
    let other = expect(&admin, 201, "POST", REQUESTS, Some(other)).await?;
    let name = other["metadata"]["name"].as_str().unwrap_or_default();
    expect(&joiner, 403, "GET", &format!("{REQUESTS}/{name}"), None).await?;

    let secret = format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{}", &bearer[..6]);
    let ended = json!({"data": {"expiration": STANDARD.encode("2020-01-01T00:00:00Z")}});
    expect(&admin, 200, "PATCH", &secret, Some(ended)).await?;
    expect(&joiner, 401, "GET", "/api/v1", None).await?;
    let ends_later = json!({"data": {"expiration": STANDARD.encode("2999-01-01T00:00:00Z")}});
    expect(&admin, 200, "PATCH", &secret, Some(ends_later)).await?;
    expect(&joiner, 200, "GET", "/api/v1", None).await?;
    expect(&admin, 200, "DELETE", &secret, None).await?;
    expect(&joiner, 401, "GET", "/api/v1", None).await.map(drop)
}

fn new_token(control: &ControlAlone) -> Result<String> {
    Ok(control.fairlead(&["token", "create"])?.trim().to_owned())
}

/// A certificate signing request of the node `name`, and its key.
fn asked_for(name: &str, signer: &str, usage: &str, sans: &[SanType]) -> Result<(Value, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
    params.subject_alt_names = sans.to_vec();
    let key = KeyPair::generate()?;
    let request = STANDARD.encode(params.serialize_request(&key)?.pem()?);
    let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "node-"},
        // Forged: the server overwrites both.
        "spec": {"signerName": signer, "request": request, "usages": ["digital signature", usage],
            "username": "kubernetes-admin", "groups": ["system:masters"]}});
    Ok((object, key.serialize_pem()))
}

/// Sends a signing request and waits for what becomes of it.
async fn signed(client: &kube::Client, request: Value) -> Result<Value> {
    let made = expect(client, 201, "POST", REQUESTS, Some(request)).await?;
    let path = format!("{REQUESTS}/{}", made["metadata"]["name"].as_str().unwrap_or_default());
    let answered = |csr: &Value| {
        let denied = csr["status"]["conditions"].as_array().is_some_and(|c| c.iter().any(|c| c["type"] == "Denied"));
        denied || csr["status"]["certificate"].is_string()
    };
    wait_for(client, &path, "answered", answered).await
}

fn certificate(csr: &Value, key_pem: String) -> Result<Issued> {
    let text = csr["status"]["certificate"].as_str().ok_or_else(|| format!("not signed: {csr}"))?;
    Ok(Issued { certificate_pem: String::from_utf8(STANDARD.decode(text)?)?, key_pem })
}

async fn node_joins(dir: tempfile::TempDir) -> Result {
    let control = ControlAlone::start(dir.path()).await?;
    let admin = control.admin()?;
    let token = new_token(&control)?;
    let joiner = control.with_token(token.rsplit_once('.').map(|(bearer, _)| bearer).unwrap_or_default())?;

    let client_signer = "kubernetes.io/kube-apiserver-client-kubelet";
    let (request, key) = asked_for("n1", client_signer, "client auth", &[])?;
    let csr = signed(&joiner, request).await?;
    if !csr["spec"]["username"].as_str().is_some_and(|u| u.starts_with("system:bootstrap:")) {
        return Err(format!("the request keeps the name it claimed: {csr}").into());
    }
    let node = control.with_certificate(&certificate(&csr, key)?)?;

    let object = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    expect(&node, 201, "POST", "/api/v1/nodes", Some(object("n1"))).await?;
    expect(&node, 403, "POST", "/api/v1/nodes", Some(object("n2"))).await?;
    expect(&admin, 201, "POST", "/api/v1/nodes", Some(object("n2"))).await?;
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    expect(&node, 200, "PATCH", "/api/v1/nodes/n1", Some(label.clone())).await?;
    let refused = expect(&node, 403, "PATCH", "/api/v1/nodes/n2", Some(label)).await?;
    if refused["message"] != "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"" {
        return Err(format!("{refused}").into());
    }
    let addresses = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    expect(&node, 200, "PATCH", "/api/v1/nodes/n1/status", Some(addresses)).await?;
    let lease =
        |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
    expect(&node, 201, "POST", LEASES, Some(lease("n1"))).await?;
    expect(&node, 403, "POST", LEASES, Some(lease("n2"))).await?;

    let sans = |ip: &str| -> Result<Vec<SanType>> {
        Ok(vec![SanType::DnsName("n1".try_into()?), SanType::IpAddress(ip.parse()?)])
    };
    let serving = "kubernetes.io/kubelet-serving";
    let (request, key) = asked_for("n1", serving, "server auth", &sans("192.0.2.1")?)?;
    certificate(&signed(&node, request).await?, key)?;
    let (request, _) = asked_for("n1", serving, "server auth", &sans("192.0.2.2")?)?;
    let denied = signed(&node, request).await?;
    if denied["status"]["certificate"].is_string() {
        return Err("a certificate for another's address".into());
    }
    pods_and_secrets(&admin, &node).await
}

/// A node sees its own pods and what they name; not those of others.
async fn pods_and_secrets(admin: &kube::Client, node: &kube::Client) -> Result {
    for name in ["mine", "foreign"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        expect(admin, 201, "POST", "/api/v1/namespaces/default/secrets", Some(secret)).await?;
    }
    for (name, node, secret) in [("p1", "n1", "mine"), ("p2", "n2", "foreign")] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": node,
            "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": secret}}]}]}});
        expect(admin, 201, "POST", "/api/v1/namespaces/default/pods", Some(pod)).await?;
    }
    let pods = "/api/v1/namespaces/default/pods";
    let secrets = "/api/v1/namespaces/default/secrets";
    let phase = json!({"status": {"phase": "Running"}});
    for (code, method, uri, body) in [
        (200, "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1".to_owned(), None),
        (403, "GET", "/api/v1/pods".into(), None),
        (403, "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2".into(), None),
        (200, "GET", format!("{pods}/p1"), None),
        (403, "GET", format!("{pods}/p2"), None),
        (404, "GET", format!("{pods}/gone"), None),
        (200, "PATCH", format!("{pods}/p1/status"), Some(phase.clone())),
        (403, "PATCH", format!("{pods}/p2/status"), Some(phase)),
        (403, "DELETE", format!("{pods}/p2"), None),
        (200, "GET", format!("{secrets}/mine"), None),
        (403, "GET", format!("{secrets}/foreign"), None),
        (403, "GET", secrets.into(), None),
        (403, "GET", "/api/v1/namespaces/kube-system/secrets".into(), None),
        (200, "GET", "/api/v1/services".into(), None),
        (200, "GET", "/apis/discovery.k8s.io/v1/endpointslices".into(), None),
        (200, "DELETE", format!("{pods}/p1?gracePeriodSeconds=0"), None),
    ] {
        expect(node, code, method, &uri, body).await?;
    }
    let (code, _) = ask(node, "GET", &format!("{secrets}/mine"), None).await?;
    if code == 403 { Ok(()) } else { Err(format!("{code}: the Secret of a pod that is gone stays readable").into()) }
}

async fn restart_keeps_authority(dir: tempfile::TempDir) -> Result {
    let control = ControlAlone::start(dir.path()).await?;
    let before = control.authority()?.hash();
    let old = issue(&control.authority()?, "root", Some("system:masters"), SystemTime::now())?;
    let token = new_token(&control)?;
    let mode = std::fs::metadata(control.data_dir.join("admin.kubeconfig"))?.permissions().mode() & 0o777;
    if mode != 0o600 {
        return Err(format!("the admin kubeconfig has mode {mode:o}").into());
    }
    let control = control.restart().await?;
    if control.authority()?.hash() != before || !token.ends_with(&before) {
        return Err("another authority after a restart".into());
    }
    expect(&control.with_certificate(&old)?, 200, "GET", "/api/v1/pods", None).await?;
    let bearer = token.rsplit_once('.').map(|(bearer, _)| bearer).unwrap_or_default();
    expect(&control.with_token(bearer)?, 200, "GET", "/api/v1", None).await.map(drop)
}

async fn open_keys(dir: tempfile::TempDir) -> Result {
    let mut control = ControlAlone::start(dir.path()).await?;
    control.process.terminate(Duration::from_secs(30))?;
    let pki = control.data_dir.join("pki");
    let start =
        || run(Command::new(FAIRLEAD).args(["server", "--bind", "127.0.0.1:0", "--data-dir"]).arg(&control.data_dir));
    let refused = |what: &str| match start() {
        Ok(_) => Err(format!("it started although {what}").into()),
        Err(e) if e.to_string().contains(what) => Ok(()),
        Err(e) => Err(format!("the message does not name {what}: {e}").into()),
    };
    std::fs::set_permissions(pki.join("ca.key"), PermissionsExt::from_mode(0o644))?;
    refused("ca.key")?;
    std::fs::set_permissions(pki.join("ca.key"), PermissionsExt::from_mode(0o600))?;
    std::fs::write(pki.join("serving.pem"), "nonsense")?;
    refused("serving.pem")?;
    std::fs::remove_file(pki.join("serving.pem"))?;
    std::fs::remove_file(pki.join("ca.key"))?;
    refused("ca.key")
}

async fn second_service(dir: tempfile::TempDir) -> Result {
    let control = ControlAlone::start(dir.path()).await?;
    let second =
        run(Command::new(FAIRLEAD).args(["server", "--bind", "127.0.0.1:0", "--data-dir"]).arg(&control.data_dir));
    let message = second.err().ok_or("two services on one directory")?.to_string();
    let pid = control.process.pid().to_string();
    if !message.contains(&pid) || !message.contains("--data-dir") {
        return Err(format!("the message does not say who is there: {message}").into());
    }
    expect(&control.admin()?, 200, "GET", "/api/v1/namespaces", None).await.map(drop)
}
