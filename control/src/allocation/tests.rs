//! Allocation against a real store: what one Service has, no other gets.

mod agent_ports;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{
    api::open_store,
    encode,
    kinds::{Registry, service},
    store::{Change, CommitError, Expect, Expired, Key, Object, Stats, Store, Subscription, Transaction},
};

struct Lab {
    store: Arc<dyn Store>,
    kind: Kind,
    _dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(open_store(&dir.path().join("store"), &Registry::default()).unwrap());
        Self { store, kind: Kind::from(&service::KIND), _dir: dir }
    }

    fn key(name: &str) -> Key {
        Key { resource: "services".into(), name: format!("default/{name}").into() }
    }

    fn stored(&self, name: &str) -> Option<(u64, Value)> {
        let snapshot = self.store.snapshot();
        let object = snapshot.get("services", &Self::key(name).name)?;
        Some((object.revision, serde_json::from_slice(&object.json()).unwrap()))
    }

    /// The transaction that makes the Service so, or removes it, as of `snapshot`.
    fn plan(&self, snapshot: &Snapshot, name: &str, spec: Option<Value>) -> Result<Transaction, Status> {
        let old = self.stored(name);
        let mut new = spec.map(|spec| json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}));
        let claimant = Claimant { kind: &self.kind, namespace: Some("default"), name };
        let records = allocator().allocate(snapshot, &claimant, old.as_ref().map(|old| &old.1), new.as_mut())?;
        let expect = old.map_or(Expect::Absent, |old| Expect::At(old.0));
        let change = new.map_or(Change::Delete, |new| Change::Put(encode::draft(&self.kind, &new)));
        let mut writes = vec![Write { key: Self::key(name), expect, change }];
        writes.extend(records);
        Ok(Transaction { require: Vec::new(), writes })
    }

    async fn write(&self, name: &str, spec: Option<Value>) -> Result<(), Status> {
        let plan = self.plan(&self.store.snapshot(), name, spec)?;
        self.store.commit(plan).await.unwrap();
        Ok(())
    }

    async fn put(&self, name: &str, spec: Value) -> Result<Value, Status> {
        self.write(name, Some(spec)).await?;
        Ok(self.stored(name).unwrap().1["spec"].clone())
    }

    fn records(&self) -> usize {
        self.store.snapshot().count(records::IPS) + self.store.snapshot().count(records::PORTS)
    }
}

fn allocator() -> Allocator {
    Allocator::new("10.96.0.0/24".parse().unwrap(), 30000..=30040)
}

fn node_port(port: i64) -> Value {
    json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": port}]})
}

#[tokio::test]
async fn a_service_gets_an_address_and_a_port_of_its_own() {
    let lab = Lab::new();
    let a = lab.put("a", node_port(0)).await.unwrap();
    let b = lab.put("b", node_port(0)).await.unwrap();
    assert_ne!(a["clusterIP"], b["clusterIP"]);
    assert_eq!(a["clusterIPs"][0], a["clusterIP"]);
    assert_ne!(a["ports"][0]["nodePort"], b["ports"][0]["nodePort"]);
    let headless = lab.put("c", json!({"type": "ClusterIP", "clusterIP": "None"})).await.unwrap();
    assert_eq!(headless["clusterIP"], "None");
    assert_eq!(lab.records(), 4);
}

#[tokio::test]
async fn what_another_has_is_refused_with_every_reason() {
    let lab = Lab::new();
    let mut asked = node_port(30005);
    asked["clusterIP"] = "10.96.0.50".into();
    lab.put("a", asked.clone()).await.unwrap();
    let status = lab.put("b", asked).await.unwrap_err();
    assert_eq!(status.code, 422);
    let words = &status.message;
    assert!(
        words.contains("spec.ports[0].nodePort: Invalid value: 30005: provided port is already allocated"),
        "{words}"
    );
    assert!(words.contains("failed to allocate IP 10.96.0.50: provided IP is already allocated"), "{words}");
    lab.put("b", node_port(30006)).await.unwrap();
}

#[tokio::test]
async fn deletion_and_a_change_of_type_free_what_was_held() {
    let lab = Lab::new();
    let a = lab.put("a", node_port(30007)).await.unwrap();
    let plain = json!({"type": "ClusterIP", "clusterIP": a["clusterIP"], "clusterIPs": a["clusterIPs"],
        "ports": [{"port": 80, "protocol": "TCP"}]});
    lab.put("a", plain).await.unwrap();
    lab.put("b", node_port(30007)).await.unwrap();
    lab.write("b", None).await.unwrap();
    lab.put("c", node_port(30007)).await.unwrap();
    lab.write("a", None).await.unwrap();
    lab.write("c", None).await.unwrap();
    assert_eq!(lab.records(), 0);
}

#[tokio::test]
async fn an_update_keeps_its_own_and_takes_only_what_is_new() {
    let lab = Lab::new();
    let mut spec = lab.put("a", node_port(30008)).await.unwrap();
    spec["ports"] = json!([{"port": 80, "nodePort": 30008}, {"port": 81, "nodePort": 30009}]);
    lab.put("a", spec).await.unwrap();
    assert!(lab.put("b", node_port(30009)).await.is_err());
    assert_eq!(lab.records(), 3);
}

#[tokio::test]
async fn tcp_and_udp_of_one_port_share_a_node_port() {
    let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
    let spec = Lab::new().put("a", json!({"type": "NodePort", "ports": ports})).await.unwrap();
    assert_eq!(spec["ports"][0]["nodePort"], spec["ports"][1]["nodePort"]);
}

#[tokio::test]
async fn an_automatic_port_is_never_one_that_the_same_service_asks_for() {
    let allocator = Allocator::new("10.96.0.0/24".parse().unwrap(), 30000..=30001);
    let lab = Lab::new();
    for _ in 0..20 {
        let ports = json!([{"port": 80}, {"port": 81, "nodePort": 30000}]);
        let mut service = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": ports}});
        let claimant = Claimant { kind: &lab.kind, namespace: Some("default"), name: "a" };
        allocator.allocate(&lab.store.snapshot(), &claimant, None, Some(&mut service)).unwrap();
        assert_eq!(service["spec"]["ports"][0]["nodePort"], 30001);
    }
}

#[tokio::test]
async fn of_two_services_that_take_one_address_at_once_one_is_stored() {
    let lab = Lab::new();
    let snapshot = lab.store.snapshot();
    let spec = |ip: &str| Some(json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]}));
    let plans = vec![
        lab.plan(&snapshot, "a", spec("10.96.0.9")).unwrap(),
        lab.plan(&snapshot, "b", spec("10.96.0.9")).unwrap(),
    ];
    let results = lab.store.commit_all(plans).await;
    assert!(results[0].is_ok());
    assert!(matches!(&results[1], Err(CommitError::Conflict { key, .. }) if &*key.name == "10.96.0.9"));
    assert!(lab.stored("b").is_none(), "nothing of the second is stored");
}

#[tokio::test]
async fn an_audit_makes_missing_records_and_removes_orphans() {
    let lab = Lab::new();
    let a = lab.put("a", node_port(30010)).await.unwrap();
    lab.put("b", node_port(30011)).await.unwrap();
    // As after an upgrade from a store without records, and as after a Service that went without its records.
    let drop_record = |resource: &'static str, name: String| {
        let snapshot = lab.store.snapshot();
        let (key, object) = snapshot.entry(resource, &name).unwrap();
        let write = records::remove(records::Record { resource, key, object });
        let store = lab.store.clone();
        async move { store.write_one(write).await.unwrap() }
    };
    drop_record(records::IPS, a["clusterIP"].as_str().unwrap().to_owned()).await;
    drop_record(records::PORTS, "30010".into()).await;
    let (revision, _) = lab.stored("b").unwrap();
    let gone = Write { key: Lab::key("b"), expect: Expect::At(revision), change: Change::Delete };
    lab.store.write_one(gone).await.unwrap();
    assert_eq!(repair(&lab.store, &allocator()).await.unwrap(), 4);
    assert_eq!(lab.records(), 2);
    assert_eq!(repair(&lab.store, &allocator()).await.unwrap(), 0);
    assert!(lab.put("c", node_port(30010)).await.is_err());
    lab.put("d", node_port(30011)).await.unwrap();
}

#[tokio::test]
async fn an_audit_parses_only_the_services_that_changed_since_the_last() {
    let lab = Lab::new();
    for n in 0..20 {
        lab.put(&format!("s{n}"), node_port(30000 + n)).await.unwrap();
    }
    let allocator = allocator();
    let parsed = || allocator.inner.held.lock().parsed;
    assert_eq!(repair(&lab.store, &allocator).await.unwrap(), 0);
    assert_eq!(parsed(), 20);
    assert_eq!(repair(&lab.store, &allocator).await.unwrap(), 0);
    assert_eq!(parsed(), 20, "nothing changed");
    lab.put("s3", node_port(30030)).await.unwrap();
    lab.write("s4", None).await.unwrap();
    assert_eq!(repair(&lab.store, &allocator).await.unwrap(), 0);
    assert_eq!(parsed(), 21);
}

#[tokio::test]
async fn an_audit_leaves_the_addresses_that_others_manage_alone() {
    let lab = Lab::new();
    let object = json!({"metadata": {"name": "10.96.0.77"}, "spec": {"parentRef": {"resource": "x", "name": "y"}}});
    let draft = encode::draft(&Kind::from(&crate::kinds::ip_address::KIND), &object);
    let key = Key { resource: records::IPS.into(), name: "10.96.0.77".into() };
    lab.store.write_one(Write { key, expect: Expect::Absent, change: Change::Put(draft) }).await.unwrap();
    assert_eq!(repair(&lab.store, &allocator()).await.unwrap(), 0);
    assert!(lab.put("a", json!({"type": "ClusterIP", "clusterIP": "10.96.0.77"})).await.is_err());
}

/// A store whose disk is full until there is space.
struct FullDisk {
    store: Arc<dyn Store>,
    is_full: AtomicBool,
}

#[async_trait::async_trait]
impl Store for FullDisk {
    fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    fn snapshot_at(&self, resource: &str, revision: u64) -> Result<Snapshot, Expired> {
        self.store.snapshot_at(resource, revision)
    }

    async fn wait_for(&self, revision: u64, within: std::time::Duration) -> u64 {
        self.store.wait_for(revision, within).await
    }

    fn keep(&self, snapshot: &Snapshot, user: &str) {
        self.store.keep(snapshot, user);
    }

    fn published(&self) -> u64 {
        self.store.published()
    }

    fn watch(&self, resource: &str, after: u64) -> Result<Subscription, Expired> {
        self.store.watch(resource, after)
    }

    fn watch_by(&self, resource: &str, term: (&str, &str), after: u64) -> Result<Subscription, Expired> {
        self.store.watch_by(resource, term, after)
    }

    fn is_stale(&self, resource: &str, object: &Object) -> bool {
        self.store.is_stale(resource, object)
    }

    fn stats(&self) -> Stats {
        self.store.stats()
    }

    async fn commit_all(&self, transactions: Vec<Transaction>) -> Vec<Result<Vec<Arc<Object>>, CommitError>> {
        if self.is_full.load(Ordering::Relaxed) {
            return transactions.iter().map(|_| Err(CommitError::Full { path: "/full".into() })).collect();
        }
        self.store.commit_all(transactions).await
    }

    async fn reread(&self, resource: &str, remake: crate::store::Remake) {
        self.store.reread(resource, remake).await;
    }

    async fn between_writes(&self, work: crate::store::BetweenWrites) -> Result<(), CommitError> {
        self.store.between_writes(work).await
    }

    fn compact(&self, revision: u64) {
        self.store.compact(revision);
    }

    fn trim(&self, now: std::time::Instant) -> usize {
        self.store.trim(now)
    }
}

#[tokio::test]
async fn where_records_cannot_be_repaired_at_the_start_nothing_is_given_until_they_are() {
    let lab = Lab::new();
    let mut service = json!({"metadata": {"name": "old", "namespace": "default"}, "spec": node_port(30010)});
    service["spec"]["clusterIP"] = "10.96.0.9".into();
    // Of a version without records.
    let draft = encode::draft(&lab.kind, &service);
    lab.store
        .write_one(Write { key: Lab::key("old"), expect: Expect::Absent, change: Change::Put(draft) })
        .await
        .unwrap();
    let full = Arc::new(FullDisk { store: lab.store.clone(), is_full: AtomicBool::new(true) });
    let (store, allocator): (Arc<dyn Store>, _) = (full.clone(), allocator());
    repair_at_start(&store, &allocator).await;

    let claimant = Claimant { kind: &lab.kind, namespace: Some("default"), name: "new" };
    let new = |spec: Value| json!({"metadata": {"name": "new"}, "spec": spec});
    let ask = |spec: Value| allocator.allocate(&store.snapshot(), &claimant, None, Some(&mut new(spec)));
    assert_eq!(ask(node_port(30010)).map(|writes| writes.len()).map_err(|status| status.code), Err(503));
    assert!(ask(json!({"type": "ExternalName", "externalName": "a.example"})).is_ok(), "it holds nothing");
    let old = Claimant { name: "old", ..claimant };
    assert!(allocator.allocate(&store.snapshot(), &old, Some(&service), None).is_ok(), "a deletion takes nothing");

    full.is_full.store(false, Ordering::Relaxed);
    assert_eq!(repair(&store, &allocator).await.unwrap(), 2);
    assert_eq!(ask(node_port(30010)).map(|writes| writes.len()).map_err(|status| status.code), Err(422));
    assert!(ask(node_port(30011)).is_ok());
}

#[test]
fn records_that_nobody_can_write_again_are_never_encrypted() {
    assert_eq!(fairlead_encryption::UNSERVED, [super::records::PORTS]);
}
