//! An API over an encrypted store: what its files say, how keys are rotated, and what becomes of bad files.

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::*;

mod running;

use crate::{
    allocation::Allocator,
    api::{Api, open_sealed_store},
    auth::Identity,
    file_follower::{FileFollower, SeenFile},
    kinds::Registry,
    store::{DamagedBases, OpenError, seal::Seal},
};

const MARKER: &str = "opensesame";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A directory with a store and the file of its encryption.
struct Disk(tempfile::TempDir);

/// An API over it.
struct Lab {
    api: Api,
    used: Option<UsedEncryption>,
    follower: Option<FileFollower>,
    seen: Option<SeenFile>,
}

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("encryption.yaml")
    }

    /// Writes a configuration for Secrets alone. Each key is provider and name, or `identity`.
    fn configure(&self, keys: &[&str]) {
        let providers: Vec<Value> = keys
            .iter()
            .map(|key| match key.split_once(':') {
                None => json!({"identity": {}}),
                Some((provider, name)) => {
                    let secret = STANDARD.encode(Sha256::digest(name));
                    json!({provider: {"keys": [{"name": name, "secret": secret}]}})
                }
            })
            .collect();
        let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": providers}]});
        std::fs::write(self.config(), config.to_string()).unwrap();
    }

    fn try_open(&self) -> Result<Lab, OpenError> {
        self.try_open_damaged(DamagedBases::Refuse)
    }

    fn try_open_damaged(&self, damaged: DamagedBases) -> Result<Lab, OpenError> {
        let encryption =
            self.config().exists().then(|| Arc::new(Encryption::read(&self.config(), true).expect("valid")));
        let kinds = Registry::default();
        let seal = encryption.clone().map(|encryption| encryption as Arc<dyn Seal>);
        let dir = self.0.path().join("store");
        std::fs::create_dir_all(&dir).unwrap();
        let opened = open_sealed_store(&dir.join("objects.redb"), &kinds, damaged, seal)?;
        let store: Arc<dyn Store> = Arc::new(opened);
        let allocator = Allocator::new("10.96.0.0/12".parse().unwrap(), 30000..=32767);
        let api = Api::new(store.clone(), kinds, allocator, "127.0.0.1:6443");
        let used = encryption.map(|encryption| UsedEncryption::new(encryption, store));
        let follow = |used: UsedEncryption| {
            let hash = used.encryption.hash();
            FileFollower::new(ENCRYPTION, self.config(), hash, used)
        };
        Ok(Lab { api, follower: used.clone().map(follow), used, seen: None })
    }

    fn open(&self) -> Lab {
        self.try_open().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Whether any file of the store has this text.
    fn has(&self, text: &str) -> bool {
        let files = std::fs::read_dir(self.0.path().join("store")).unwrap();
        let mut all = files.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        all.any(|bytes| memchr::memmem::find(&bytes, text.as_bytes()).is_some())
    }
}

impl Lab {
    async fn call(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        self.answer(Request::builder().method(method).uri(path).body(Body::from(body.to_string())).unwrap()).await
    }

    async fn answer(&self, request: Request<Body>) -> (u16, Value) {
        let response = self.api.answer_as(Identity::control("test"), request).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn post(&self, path: &str, body: Value) {
        let (code, answer) = self.call(Method::POST, path, &body).await;
        assert_eq!(code, 201, "{answer}");
    }

    async fn get(&self, name: &str) -> Value {
        let (code, answer) = self.call(Method::GET, &format!("{SECRETS}/{name}"), &Value::Null).await;
        assert_eq!(code, 200, "{answer}");
        answer
    }

    /// Reads a Secret and puts it back as it is; whether that was written.
    async fn replace(&self, name: &str) -> bool {
        let read = self.get(name).await;
        let (code, written) = self.call(Method::PUT, &format!("{SECRETS}/{name}"), &read).await;
        assert_eq!(code, 200, "{written}");
        read["metadata"]["resourceVersion"] != written["metadata"]["resourceVersion"]
    }

    /// Patches a Secret with nothing; whether that was written.
    async fn patch(&self, name: &str) -> bool {
        let (before, path) = (self.get(name).await, format!("{SECRETS}/{name}"));
        let request = Request::patch(path).header("content-type", "application/merge-patch+json");
        let (code, patched) = self.answer(request.body(Body::from("{}")).unwrap()).await;
        assert_eq!(code, 200, "{patched}");
        before["metadata"]["resourceVersion"] != patched["metadata"]["resourceVersion"]
    }

    async fn look(&mut self) {
        let follower = self.follower.as_ref().expect("it is configured");
        follower.look(&mut self.seen, Instant::now()).await;
    }

    fn counts(&self) -> (u64, u64) {
        self.follower.as_ref().map_or((0, 0), FileFollower::counts)
    }

    /// With a namespace, a Secret and a ConfigMap that has the same text.
    async fn fill(&self) {
        self.post("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await;
        self.post(SECRETS, json!({"metadata": {"name": "s"}, "data": {"k": STANDARD.encode(MARKER)}})).await;
    }
}

#[tokio::test]
async fn no_file_has_a_secret_with_any_provider_and_all_have_it_without() {
    let text = STANDARD.encode(MARKER);
    for provider in ["aesgcm:a", "aescbc:a", "secretbox:a", "identity"] {
        let (disk, is_plain) = (Disk::new(), provider == "identity");
        disk.configure(&[provider, "identity"]);
        let lab = disk.open();
        lab.fill().await;
        assert_eq!(disk.has(&text), is_plain, "{provider}, in the log");
        let map = json!({"metadata": {"name": "m"}, "data": {"k": "not secret"}});
        lab.post(CONFIG_MAPS, map).await;
        assert!(disk.has("not secret"));
        drop(lab);
        assert_eq!(disk.has(&text), is_plain, "{provider}, in the tables");
        let lab = disk.open();
        assert_eq!(lab.get("s").await["data"]["k"], text.as_str(), "{provider}");
    }
}

#[tokio::test]
async fn keys_are_rotated_while_it_runs() {
    let disk = Disk::new();
    let lab = disk.open();
    lab.fill().await;
    assert!(!lab.replace("s").await, "nothing changes, and nothing is written");
    drop(lab);

    disk.configure(&["aesgcm:one", "identity"]);
    let mut lab = disk.open();
    assert!(lab.replace("s").await, "it was not encrypted");
    assert!(!lab.replace("s").await);
    lab.look().await;
    assert_eq!(lab.counts(), (0, 0), "the file is the same");

    disk.configure(&["secretbox:two", "aesgcm:one"]);
    lab.look().await;
    assert_eq!(lab.counts(), (1, 0));
    assert!(lab.replace("s").await, "it was under the old key");
    assert!(!lab.replace("s").await);
    assert!(!lab.patch("s").await);

    disk.configure(&["secretbox:two"]);
    lab.look().await;
    assert_eq!(lab.counts(), (2, 0), "nothing needs the old key");
    disk.configure(&["aescbc:three", "secretbox:two"]);
    lab.look().await;
    assert!(lab.patch("s").await, "it was under the old key");
    assert!(!lab.patch("s").await);
    drop(lab);
    let lab = disk.open();
    assert_eq!(lab.get("s").await["data"]["k"], STANDARD.encode(MARKER));
}

#[tokio::test]
async fn a_bad_file_is_counted_and_the_one_before_stays() {
    let disk = Disk::new();
    disk.configure(&["aesgcm:one", "identity"]);
    let mut lab = disk.open();
    lab.fill().await;
    let hash = lab.used.as_ref().unwrap().encryption.hash();
    std::fs::write(disk.config(), "resources: [").unwrap();
    lab.look().await;
    lab.look().await;
    assert_eq!(lab.counts(), (0, 1), "the same file counts once a minute");
    std::fs::remove_file(disk.config()).unwrap();
    lab.look().await;
    assert_eq!(lab.counts(), (0, 2));
    // What is stored needs the key.
    disk.configure(&["aesgcm:two", "identity"]);
    lab.look().await;
    assert_eq!(lab.counts(), (0, 3));
    assert_eq!(lab.used.as_ref().unwrap().encryption.hash(), hash);
    assert!(!lab.replace("s").await, "it is still under the key that counts");
    disk.configure(&["aesgcm:two", "aesgcm:one"]);
    lab.look().await;
    assert_eq!(lab.counts(), (1, 3));
    assert!(lab.replace("s").await);

    let metrics = crate::metrics::Metrics::default();
    let follower = lab.follower.take().unwrap();
    metrics.add(move |scrape| follower.tell(scrape));
    let text = metrics.render().unwrap();
    for start in [
        "apiserver_encryption_config_controller_automatic_reloads_total{status=\"success\",apiserver_id_hash=\"sha256:",
        "apiserver_encryption_config_controller_automatic_reloads_total{status=\"failure\",apiserver_id_hash=\"sha256:",
        "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds{status=\"success\",",
        "apiserver_encryption_config_controller_last_config_info{apiserver_id_hash=\"sha256:",
    ] {
        assert!(text.lines().any(|line| line.starts_with(start)), "{start} in\n{text}");
    }
}

#[tokio::test]
async fn a_start_without_a_key_says_which_and_loses_nothing() {
    let disk = Disk::new();
    disk.configure(&["aesgcm:one", "identity"]);
    let lab = disk.open();
    lab.fill().await;
    drop(lab);
    for (keys, reason) in [
        (&["aesgcm:two", "identity"][..], "1 of secrets (no key aesgcm:v1:one is configured;"),
        (&["secretbox:one"], "1 of secrets (no key aesgcm:v1:one is configured;"),
    ] {
        disk.configure(keys);
        let refused = disk.try_open().err().expect(reason).to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    std::fs::remove_file(disk.config()).unwrap();
    assert!(disk.try_open().is_err(), "nor without any configuration");
    // Another secret under the same name.
    disk.configure(&["aesgcm:one"]);
    let text = std::fs::read_to_string(disk.config()).unwrap();
    let other = text.replace(&STANDARD.encode(Sha256::digest("one")), &STANDARD.encode(Sha256::digest("other")));
    std::fs::write(disk.config(), other).unwrap();
    let refused = disk.try_open().err().expect("it opens nothing").to_string();
    assert!(refused.contains("1 of secrets (the key aesgcm:v1:one is not the one that encrypted them;"), "{refused}");
    disk.configure(&["secretbox:two", "aesgcm:one"]);
    assert_eq!(disk.open().get("s").await["data"]["k"], STANDARD.encode(MARKER));
}

#[tokio::test]
async fn a_write_that_was_made_meanwhile_keeps_the_key_that_it_was_sealed_under() {
    let disk = Disk::new();
    disk.configure(&["aesgcm:one"]);
    let lab = disk.open();
    let used = lab.used.as_ref().unwrap();
    let before = used.encryption.hash();
    disk.configure(&["aesgcm:two"]);
    let config = FileConfiguration::read(&disk.config(), true).expect("valid");
    let new = used.prepare(config).await.expect("nothing needs the key yet");
    lab.fill().await;
    let refused = used.replace(new).await.expect_err("a Secret needs it").to_string();
    assert!(refused.contains("aesgcm:v1:one for 1 of secrets"), "{refused}");
    assert_eq!(used.encryption.hash(), before);
    assert!(!lab.replace("s").await, "what seals is still that key");
    drop(lab);
    disk.configure(&["aesgcm:one"]);
    assert_eq!(disk.open().get("s").await["data"]["k"], STANDARD.encode(MARKER));
}

#[tokio::test]
async fn a_key_of_what_is_kept_aside_is_not_taken_away_while_it_runs() {
    let disk = Disk::new();
    disk.configure(&["aesgcm:one"]);
    let lab = disk.open();
    lab.fill().await;
    drop(lab);
    disk.configure(&["aesgcm:two"]);
    let mut lab = disk.try_open_damaged(DamagedBases::Quarantine).unwrap_or_else(|error| panic!("{error}"));
    disk.configure(&["aesgcm:three", "aesgcm:two"]);
    lab.look().await;
    assert_eq!(lab.counts(), (1, 0), "a key that is not there is not asked for");
    disk.configure(&["aesgcm:three", "aesgcm:one"]);
    lab.look().await;
    assert_eq!(lab.counts(), (2, 0));
    disk.configure(&["aesgcm:three"]);
    lab.look().await;
    assert_eq!(lab.counts(), (2, 1), "the key that was found again would be lost");
    drop(lab);
    disk.configure(&["aesgcm:three", "aesgcm:one"]);
    assert_eq!(disk.open().get("s").await["data"]["k"], STANDARD.encode(MARKER));
}

#[tokio::test]
async fn identity_is_not_taken_away_while_what_is_kept_aside_needs_it() {
    let disk = Disk::new();
    let lab = disk.open();
    lab.fill().await;
    drop(lab);
    disk.configure(&["aesgcm:one"]);
    let mut lab = disk.try_open_damaged(DamagedBases::Quarantine).unwrap_or_else(|error| panic!("{error}"));
    disk.configure(&["aesgcm:two", "identity"]);
    lab.look().await;
    assert_eq!(lab.counts(), (1, 0));
    for again in 0..2 {
        disk.configure(&["aesgcm:two"]);
        lab.look().await;
        assert_eq!(lab.counts().1, 1, "the Secret stands there as it is");
        if again == 0 {
            // Its name is taken, and it stays aside.
            lab.post(SECRETS, json!({"metadata": {"name": "s"}})).await;
            drop(lab);
            disk.configure(&["aesgcm:two", "identity"]);
            lab = disk.open();
        }
    }
    drop(lab);
    disk.configure(&["aesgcm:two", "identity"]);
    assert_eq!(disk.open().get("s").await.get("data"), None);
}
