//! A control service that runs with encryption: what it tells of a key service, and how an operator rotates keys.

use http::{Method, Request};
use kube::client::Body as RequestBody;

use super::*;
use crate::server::Running;

/// A control service over a disk, and what it is asked by.
struct Server {
    running: Running,
    client: kube::Client,
}

impl Server {
    /// Starts it with the file of the disk, if there is one.
    async fn start(disk: &Disk) -> Self {
        let mut config = crate::Config::new(disk.0.path().join("data"));
        config.bind = ([127, 0, 0, 1], 0).into();
        config.api_only = true;
        config.encryption_provider_config = disk.config().exists().then(|| disk.config());
        config.encryption_provider_config_automatic_reload = disk.config().exists();
        let running = crate::start(config).await.expect("a start");
        let client = running.client();
        Self { running, client }
    }

    async fn stop(self) {
        drop(self.client);
        self.running.shutdown().await;
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> (u16, String) {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).body(RequestBody::from(bytes));
        let response = self.client.send(request.unwrap()).await.expect("an answer");
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> Value {
        let (code, text) = self.send(method, path, body).await;
        assert!(code == 200 || code == 201, "{path}: {code} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until the metrics have this.
    async fn metric(&self, text: &str) {
        let has = async { while !self.send(Method::GET, "/metrics", &Value::Null).await.1.contains(text) {} };
        tokio::time::timeout(Duration::from_secs(60), has).await.unwrap_or_else(|_| panic!("{text} does not come"));
    }

    /// Waits until the file as it is now is used.
    async fn uses(&self, disk: &Disk) {
        let hash = FileConfiguration::hash_of(&disk.config()).unwrap();
        self.metric(&format!("hash=\"{hash}\"}} 1")).await;
    }

    /// `kubectl get secrets -A -o json | kubectl replace -f -`; how many were written.
    async fn rewrite(&self) -> usize {
        let list = self.json(Method::GET, "/api/v1/secrets", &Value::Null).await;
        let mut written = 0;
        for mut secret in list["items"].as_array().unwrap().clone() {
            (secret["apiVersion"], secret["kind"]) = ("v1".into(), "Secret".into());
            let text = |field: &str| secret["metadata"][field].as_str().unwrap().to_owned();
            let path = format!("/api/v1/namespaces/{}/secrets/{}", text("namespace"), text("name"));
            let now = self.json(Method::PUT, &path, &secret).await;
            written += usize::from(now["metadata"]["resourceVersion"] != secret["metadata"]["resourceVersion"]);
        }
        written
    }

    /// Makes Secrets with this name in two namespaces, and a ConfigMap.
    async fn fill(&self, name: &str) {
        for namespace in ["default", "kube-system"] {
            let secret =
                json!({"metadata": {"name": name}, "data": {"k": STANDARD.encode(format!("{MARKER} {name}"))}});
            self.json(Method::POST, &format!("/api/v1/namespaces/{namespace}/secrets"), &secret).await;
        }
        self.json(Method::POST, CONFIG_MAPS, &json!({"metadata": {"name": name}, "data": {"k": "not secret"}})).await;
    }

    /// All that [`Self::fill`] made is as it was.
    async fn has(&self, names: &[&str]) {
        for name in names {
            for namespace in ["default", "kube-system"] {
                let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
                let secret = self.json(Method::GET, &path, &Value::Null).await;
                assert_eq!(secret["data"]["k"], STANDARD.encode(format!("{MARKER} {name}")));
            }
            let map = self.json(Method::GET, &format!("{CONFIG_MAPS}/{name}"), &Value::Null).await;
            assert_eq!(map["data"]["k"], "not secret");
        }
    }
}

impl Disk {
    /// Writes a configuration with keys of one provider, as Kubernetes' documentation has it.
    fn configure_keys(&self, names: &[&str], is_plain_read: bool) {
        let secret = |name: &&str| json!({"name": name, "secret": STANDARD.encode(Sha256::digest(name))});
        let keys: Vec<Value> = names.iter().map(secret).collect();
        let mut providers = vec![json!({"aesgcm": {"keys": keys}})];
        providers.extend(is_plain_read.then(|| json!({"identity": {}})));
        let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": providers}]});
        std::fs::write(self.config(), config.to_string()).unwrap();
    }

    /// Whether the tables of a service that was stopped have this.
    fn tables_have(&self, text: &str) -> bool {
        let bytes = std::fs::read(self.0.path().join("data/store/objects.redb")).unwrap();
        memchr::memmem::find(&bytes, text.as_bytes()).is_some()
    }
}

/// The walk of Kubernetes' documentation, "Encrypting Confidential Data at Rest": encrypt what is there; then add the
/// new key second, make it the first, write all Secrets again, and drop the old key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_encrypts_what_is_there_and_rotates_the_key() {
    let (disk, text) = (Disk::new(), STANDARD.encode(format!("{MARKER} ")));
    // The last bytes of a text in base64 are of what follows, too.
    let text = text.trim_end_matches('=').get(..12).unwrap();
    let server = Server::start(&disk).await;
    server.fill("a").await;
    assert_eq!(server.rewrite().await, 0);
    server.stop().await;
    assert!(disk.tables_have(text));

    disk.configure_keys(&["one"], true);
    let server = Server::start(&disk).await;
    let all = server.json(Method::GET, "/api/v1/secrets", &Value::Null).await["items"].as_array().unwrap().len();
    assert_eq!((server.rewrite().await, server.rewrite().await), (all, 0));
    server.stop().await;
    assert!(!disk.tables_have(text), "nor has the history it, or a place that is free");
    assert!(disk.tables_have("aesgcm:v1:one"));

    // Nothing may be stored as it is any more, and the new key is known.
    disk.configure_keys(&["one", "two"], false);
    let server = Server::start(&disk).await;
    server.fill("b").await;
    assert_eq!(server.rewrite().await, 0, "the first key is the same");
    disk.configure_keys(&["two", "one"], false);
    server.uses(&disk).await;
    server.fill("c").await;
    let stale = all + 2;
    // Too early: it is refused, and tried again in a minute, or at once when it changes.
    disk.configure_keys(&["two"], false);
    server.metric("automatic_reloads_total{status=\"failure\",").await;
    assert_eq!((server.rewrite().await, server.rewrite().await), (stale, 0), "those under the first key");
    let same = std::fs::read_to_string(disk.config()).unwrap();
    std::fs::write(disk.config(), same + "\n").unwrap();
    server.uses(&disk).await;
    server.fill("d").await;
    server.has(&["a", "b", "c", "d"]).await;
    server.stop().await;

    let server = Server::start(&disk).await;
    server.has(&["a", "b", "c", "d"]).await;
    assert_eq!(server.rewrite().await, 0);
    let (_, metrics) = server.send(Method::GET, "/metrics", &Value::Null).await;
    assert!(metrics.contains("fairlead_store_quarantined_objects 0"), "{metrics}");
    server.stop().await;
    assert!(!disk.tables_have(text));
}

#[tokio::test]
async fn a_key_service_that_is_away_is_told_and_only_what_it_encrypts_is_refused() {
    let disk = Disk::new();
    let kms = json!({"apiVersion": "v2", "name": "vault", "endpoint": "unix:///nonexistent/kms.sock"});
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"kms": kms}, {"identity": {}}]}]});
    std::fs::write(disk.config(), file.to_string()).unwrap();
    let server = Server::start(&disk).await;
    let (code, ready) = server.send(Method::GET, "/readyz", &Value::Null).await;
    assert!(ready.contains("[-]kms-providers failed: kms provider vault is not healthy"), "{ready}");
    assert!(code == 500 && !ready.contains("nonexistent"), "no path is shown");
    let (_, live) = server.send(Method::GET, "/livez?verbose", &Value::Null).await;
    assert!(!live.contains("kms"), "a restart would help nothing: {live}");
    let named = |name: &str| json!({"metadata": {"name": name}});
    let (code, told) = server.send(Method::POST, SECRETS, &named("s")).await;
    assert!(code >= 500 && told.contains("cannot encrypt an object of secrets"), "{code} {told}");
    let (code, told) = server.send(Method::POST, CONFIG_MAPS, &named("m")).await;
    assert_eq!(code, 201, "{told}");
    let (_, metrics) = server.send(Method::GET, "/metrics", &Value::Null).await;
    assert!(metrics.contains("apiserver_encryption_config_controller_last_config_info{"), "{metrics}");
    server.stop().await;
}
