//! Measures the store alone, with objects like the pods of `cargo xtask bench api`:
//!
//! ```text
//! cargo run --release -p fairlead-store --example store_bench -- DIR make 100000   # fills a new store, and stops
//! cargo run --release -p fairlead-store --example store_bench -- DIR open          # opens it, and stops
//! cargo run --release -p fairlead-store --example store_bench -- DIR kill          # opens it, and ends without a stop
//! cargo run --release -p fairlead-store --example store_bench -- DIR write 1 2000  # 2000 creates by one writer
//! ```

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use fairlead_store::{
    Change, Decode, Draft, Embedded, Expect, HeaderParts, Key, RESOURCE_VERSION, Store, StoredCell, Write,
};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A program that is always the same one.
struct Program;

impl Decode for Program {
    fn decode(&self, _: &str, _: &str, json: &[u8]) -> std::result::Result<Draft, serde_json::Error> {
        serde_json::from_slice(json).map(draft)
    }

    fn mark(&self, _: &str) -> Option<u64> {
        Some(1)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let done = match words.as_slice() {
        [dir, "make", count] => runtime.block_on(make(&path(dir), count)),
        [dir, "open"] => runtime.block_on(open(&path(dir), true)),
        [dir, "kill"] => runtime.block_on(open(&path(dir), false)),
        [dir, "write", writers, count] => runtime.block_on(write(&path(dir), writers, count)),
        _ => Err("usage: DIR make COUNT | open | kill | write WRITERS COUNT".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn path(dir: &str) -> PathBuf {
    Path::new(dir).join("objects.redb")
}

async fn make(path: &Path, count: &str) -> Result {
    let count: usize = count.parse()?;
    let store = Embedded::open(path, Program)?;
    let begun = Instant::now();
    let mut names = (0..count).map(|index| format!("default/alone-{index:06}")).peekable();
    let mut json = 0;
    while names.peek().is_some() {
        let writes = names.by_ref().take(64).map(|name| create(&name)).collect();
        for written in store.write(writes).await {
            json += written?.json().len();
        }
    }
    println!("{count} objects with {} MB of JSON in {:?}", json / 1_000_000, begun.elapsed());
    let begun = Instant::now();
    drop(store);
    println!("stop: {:?}; file {} MB", begun.elapsed(), fs::metadata(path)?.len() / 1_000_000);
    Ok(())
}

async fn open(path: &Path, stop: bool) -> Result {
    let (begun, processor) = (Instant::now(), processor_ms());
    let store = Embedded::open(path, Program)?;
    println!(
        "open: {:?}, processor {} ms, resident {} MB, {} objects at revision {}",
        begun.elapsed(),
        processor_ms().saturating_sub(processor),
        resident_mb()?,
        store.snapshot().count("pods"),
        store.published()
    );
    let begun = Instant::now();
    let latest = store.published();
    let seen = store.watch("pods", latest.saturating_sub(1000)).is_ok();
    println!("first watch, 1000 changes back: {:?}, {}", begun.elapsed(), if seen { "continues" } else { "expired" });
    if !stop {
        std::process::exit(0);
    }
    let begun = Instant::now();
    drop(store);
    println!("stop: {:?}; file {} MB", begun.elapsed(), fs::metadata(path)?.len() / 1_000_000);
    Ok(())
}

async fn write(path: &Path, writers: &str, count: &str) -> Result {
    let (writers, count): (usize, usize) = (writers.parse()?, count.parse()?);
    let store = Arc::new(Embedded::open(path, Program)?);
    let next = Arc::new(AtomicUsize::new(0));
    let set = store.published();
    let (begun, processor) = (Instant::now(), processor_ms());
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (store, next) = (store.clone(), next.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return Ok::<_, fairlead_store::CommitError>(times);
                    }
                    let write = create(&format!("default/set-{set}-{index:06}"));
                    let begun = Instant::now();
                    store.write_one(write).await?;
                    times.push(begun.elapsed());
                }
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let took = begun.elapsed();
    times.sort_unstable();
    let at = |part: usize| times.get(times.len().saturating_mul(part) / 100).copied().unwrap_or_default();
    println!(
        "{writers} writers: {:.0} creates/s, processor {} ms; p10 {:?}, p50 {:?}, p90 {:?}",
        count as f64 / took.as_secs_f64(),
        processor_ms().saturating_sub(processor),
        at(10),
        at(50),
        at(90)
    );
    let syncs = store.stats().sync_seconds;
    let number: u64 = syncs.counts.iter().sum();
    println!("commits to the log: {number}, {:.0} µs each", syncs.sum_seconds * 1e6 / number.max(1) as f64);
    Ok(())
}

fn create(name: &str) -> Write {
    let key = Key { resource: "pods".into(), name: name.into() };
    Write { key, expect: Expect::Absent, change: Change::Put(draft(pod(name.rsplit('/').next().unwrap_or(name)))) }
}

/// A pod as the API stores it.
fn pod(name: &str) -> Value {
    let number = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let uid = format!("{:08x}-{:04x}-4abc-9def-{:012x}", mixed as u32, (mixed >> 32) as u16, number & 0xffff_ffff_ffff);
    let time = format!("2026-11-22T1{}:{:02}:{:02}Z", number % 10, number / 10 % 60, number / 600 % 60);
    let env: Vec<Value> =
        (0..12).map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("value-{n}-of-a-setting")})).collect();
    let env_fields: serde_json::Map<String, Value> = (0..12)
        .map(|n| (format!("k:{{\"name\":\"SETTING_{n}\"}}"), json!({".": {}, "f:name": {}, "f:value": {}})))
        .collect();
    let managed = json!([{"manager": "unknown", "operation": "Update", "apiVersion": "v1", "time": time,
        "fieldsType": "FieldsV1", "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:hundredth": {}, "f:tier": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:env": env_fields, "f:image": {},
                "f:imagePullPolicy": {}, "f:name": {}, "f:ports": {".": {},
                "k:{\"containerPort\":8080,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                "f:readinessProbe": {".": {}, "f:failureThreshold": {}, "f:httpGet": {".": {}, "f:path": {},
                "f:port": {}, "f:scheme": {}}, "f:periodSeconds": {}, "f:successThreshold": {}, "f:timeoutSeconds": {}},
                "f:resources": {".": {}, "f:limits": {".": {}, "f:memory": {}}, "f:requests": {".": {}, "f:cpu": {},
                "f:memory": {}}}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}}},
                "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {}, "f:schedulerName": {},
                "f:securityContext": {}, "f:terminationGracePeriodSeconds": {}}}}]);
    let token = "kube-api-access-".to_owned() + &name[name.len().saturating_sub(5)..];
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid, "creationTimestamp": time,
            "labels": {"app": "single", "hundredth": (number % 100).to_string(), "tier": "bench"},
            "managedFields": managed},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "web", "image": "registry.example/web:1",
            "env": env, "ports": [{"containerPort": 8080, "protocol": "TCP"}], "imagePullPolicy": "IfNotPresent",
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "volumeMounts": [{"name": token, "readOnly": true,
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
            "volumes": [{"name": token, "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1",
                    "fieldPath": "metadata.namespace"}}]}}]}}],
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "serviceAccountName": "default",
            "serviceAccount": "default", "securityContext": {}, "schedulerName": "default-scheduler",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 300}, {"key": "node.kubernetes.io/unreachable", "operator": "Exists",
                "effect": "NoExecute", "tolerationSeconds": 300}],
            "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority"},
        "status": {"phase": "Pending", "qosClass": "Burstable"}})
}

/// The object laid out for the store, with a header.
fn draft(mut object: Value) -> Draft {
    let mut metadata = object["metadata"].take();
    let managed = metadata.as_object_mut().and_then(|metadata| metadata.remove("managedFields")).unwrap_or_default();
    metadata.as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
    let mut head = format!("{{\"apiVersion\":{},\"kind\":{},\"metadata\":", object["apiVersion"], object["kind"]);
    let metadata_at = head.len() as u32;
    let own = metadata.to_string();
    head.push_str(own.strip_suffix('}').unwrap_or(&own));
    let managers = format!("\"managedFields\":{managed},");
    head.push(',');
    head.push_str(&managers);
    head.push_str(RESOURCE_VERSION);
    let tail = format!("\"}},\"spec\":{},\"status\":{}}}", object["spec"], object["status"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = ["namespace", "name", "uid"].map(|name| text(&metadata[name]));
    let labels: Vec<(String, String)> = metadata["labels"]
        .as_object()
        .map(|labels| labels.iter().map(|(key, value)| (key.clone(), text(value))).collect())
        .unwrap_or_default();
    let fields = ["nodeName", "restartPolicy", "schedulerName", "serviceAccountName"]
        .map(|field| (format!("spec.{field}").into(), text(&object["spec"][field])));
    let status = ["phase", "podIP", "nominatedNodeName"]
        .map(|field| (format!("status.{field}").into(), text(&object["status"][field])));
    let mut cells: Vec<StoredCell<'_>> = ["0/1", "Pending", "0", "<none>", "<none>", "<none>", "<none>"]
        .map(|cell| StoredCell::Text(format!("{cell:?}").into()))
        .into();
    cells.insert(0, StoredCell::Text(metadata["name"].to_string().into()));
    cells.push(StoredCell::Age(1_795_000_000));
    let header = HeaderParts {
        namespace: &names[0],
        name: &names[1],
        uid: &names[2],
        labels: labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        fields: fields.into_iter().chain(status).collect(),
        indexed: &["spec.nodeName".into()],
        cells,
        ..HeaderParts::default()
    };
    let header = header.pack();
    Draft { head: head.into(), tail: tail.into(), metadata_at, managed_len: managers.len() as u32, header }
}

/// Time of the processors that the process has used.
fn processor_ms() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>().saturating_mul(10)
}

fn resident_mb() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1000)
}
