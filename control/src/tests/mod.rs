//! The controllers and the scheduler over the real API and a real store, with nodes and kubelets played by the test.

mod aggregation;
mod certificates;
mod cron_jobs;
mod custom_kinds;
mod daemon_sets;
mod disruption;
mod front_proxies;
mod interrupted_jobs;
mod jobs;
mod nodes;
mod owner_references;
mod preemption;
mod roles;
mod rollouts;
mod secret_tokens;
mod services;
mod stateful_sets;
mod volumes;
mod watches;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    allocation::Allocator,
    api::{self, open_store},
    auth::{
        Identity,
        account_token::TokenIssuer,
        pki::{Authority, ServingNames, TokenKey},
    },
    bootstrap::KubernetesService,
    controllers::{self, ControlNames, Controllers, ControllersConfig},
    kinds::Registry,
    scheduler::{self, Scheduler},
};

/// Longest that a test waits for anything; what is waited for comes in milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster without hosts.
pub struct Cluster {
    /// Of an administrator.
    pub client: Client,
    controllers: Controllers,
    scheduler: Scheduler,
    kubelet: JoinHandle<()>,
    /// The kinds that the API serves.
    pub kinds: Registry,
    /// The API itself.
    pub api: api::Api,
    /// What the controllers were started with.
    pub config: ControllersConfig,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// A cluster with ready nodes `n1`, `n2`, … whose pods become ready as soon as they are bound.
    pub async fn start(nodes: usize) -> Self {
        Self::with_grace(nodes, Duration::from_secs(3600)).await
    }

    /// As [`Self::start`], with nodes that are lost when they have been silent for `grace`.
    pub async fn with_grace(nodes: usize, grace: Duration) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let kinds = Registry::default();
        let store = open_store(&dir.path().join("store.redb"), &kinds).expect("a store");
        let allocator = Allocator::new("10.96.0.0/12".parse().expect("a network"), 30000..=32767);
        let api = api::Api::new(Arc::new(store), kinds.clone(), allocator, "127.0.0.1:6443");
        let (key, _) = TokenKey::create().expect("a key");
        api.authorizer().facts().issue_tokens_by(TokenIssuer::new(key, "https://issuer".into(), "127.0.0.1:6443"));
        let client = api.client(Identity::control("test"));
        for namespace in ["default", "kube-node-lease"] {
            create::<k8s_openapi::api::core::v1::Namespace>(&client, "", json!({"metadata": {"name": namespace}}))
                .await;
        }
        for n in 1..=nodes {
            add_node(&client, &format!("n{n}")).await;
        }
        let (authority, _) = Authority::create(time::OffsetDateTime::now_utc()).expect("an authority");
        let config = ControllersConfig {
            cluster_cidr: "10.244.0.0/16".parse().expect("a network"),
            node_cidr_mask_size: 24,
            authority: Arc::new(authority),
            kubernetes_service: KubernetesService::new(&crate::Config::new(dir.path()), None).restoring(client.clone()),
            control_names: ControlNames {
                serving: ServingNames { dns_names: Vec::new(), addresses: vec![[10, 96, 0, 1].into()] },
                service_cidr: "10.96.0.0/12".parse().expect("a network"),
                cluster_domain: "cluster.local".into(),
                boot_id: String::new(),
            },
            sign_token: api.authorizer().facts().sign_token(),
            node_monitor_grace_period: grace,
        };
        let controllers =
            controllers::start(client.clone(), config.clone(), kinds.subscribe(), api.published().subscribe());
        let scheduler = scheduler::start(client.clone(), controllers.informers());
        let kubelet = tokio::spawn(play_kubelets(client.clone()));
        for n in 1..=nodes {
            schedulable(&client, &format!("n{n}")).await;
        }
        Self { client, controllers, scheduler, kubelet, kinds, api, config, _dir: dir }
    }

    /// A client for somebody else than an administrator.
    pub fn client_of(&self, identity: Identity) -> Client {
        self.api.client(identity)
    }

    /// Ends scheduler and controllers, and waits for them.
    pub async fn stop(self) {
        self.scheduler.shutdown().await;
        self.controllers.shutdown().await;
        self.kubelet.abort();
    }

    /// The objects of one kind in the namespace `default`.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Waits until the object is as `is` says.
    pub async fn wait<K>(&self, name: &str, what: &str, is: impl Fn(&K) -> bool) -> K
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let last = std::sync::Mutex::new(None);
        let found = async {
            let mut objects = std::pin::pin!(watcher(self.api::<K>(), config).default_backoff().applied_objects());
            // A watch that failed starts again, as every client's does.
            while let Some(next) = objects.next().await {
                if let Ok(object) = &next
                    && is(object)
                {
                    return next.expect("an object");
                }
                *last.lock().expect("not poisoned") = Some(next);
            }
            panic!("the watch of {name} ended")
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(object) => object,
            Err(_) => panic!("{name} did not become {what}: {:#?}", last.lock()),
        }
    }

    /// Waits until the list of a kind is as `is` says.
    pub async fn wait_list<K>(&self, selector: &str, what: &str, is: impl Fn(&[K]) -> bool) -> Vec<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let api = self.api::<K>();
        let list = ListParams::default().labels(selector);
        let found = async {
            // Every change of the kind is a reason to look again.
            let mut events = std::pin::pin!(watcher(api.clone(), watcher::Config::default()).default_backoff());
            while events.next().await.is_some() {
                let items = api.list(&list).await.expect("a list").items;
                if is(&items) {
                    return items;
                }
            }
            panic!("the watch ended")
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(items) => items,
            Err(_) => panic!("{selector} did not become {what}: {:#?}", api.list(&list).await.map(|l| l.items)),
        }
    }
}

/// Creates the object, with `apiVersion` and `kind` filled in; `namespace` is empty for cluster-scoped kinds.
pub async fn create<K>(client: &Client, namespace: &str, object: Value) -> K
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut object = object;
    object["apiVersion"] = json!(K::api_version(&()));
    object["kind"] = json!(K::kind(&()));
    let path = K::url_path(&(), Some(namespace).filter(|namespace| !namespace.is_empty()));
    let request =
        http::Request::post(path).header("content-type", "application/json").body(object.to_string().into_bytes());
    client.request(request.expect("a request")).await.expect("created")
}

/// A ready Node with 8 cores, 16 GiB and room for 110 pods.
pub async fn add_node(client: &Client, name: &str) {
    create::<Node>(client, "", json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})).await;
    let status = json!({"status": {"allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": Timestamp::now(),
            "lastTransitionTime": Timestamp::now()}]}});
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a node status");
}

/// Waits until the node lifecycle controller took the taint away with which every node is created.
async fn schedulable(client: &Client, name: &str) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let found = async {
        let nodes: Api<Node> = Api::all(client.clone());
        let mut changes = std::pin::pin!(watcher(nodes, config).default_backoff().applied_objects());
        while let Some(node) = changes.next().await {
            let spec = node.ok().and_then(|node| node.spec);
            if spec.is_some_and(|spec| spec.taints.is_none_or(|taints| taints.is_empty())) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("node {name} kept its taints"));
}

/// What kubelets do to the API: bound pods run and become ready, pods that are to go go.
async fn play_kubelets(client: Client) {
    let pods: Api<Pod> = Api::all(client.clone());
    let mut changes = std::pin::pin!(watcher(pods, watcher::Config::default()).default_backoff().applied_objects());
    let mut next = 0u32;
    while let Some(pod) = changes.next().await {
        let Ok(pod) = pod else { continue };
        let Some(spec) = &pod.spec else { continue };
        let (name, namespace) =
            (pod.metadata.name.as_deref().unwrap_or(""), pod.metadata.namespace.as_deref().unwrap_or(""));
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        // Nobody runs on the node `gone`.
        if spec.node_name.as_deref().is_none_or(|node| node == "gone") {
            continue;
        }
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
        let (running, finished) = (phase == "Running", matches!(phase, "Succeeded" | "Failed"));
        if pod.metadata.deletion_timestamp.is_some() {
            let now = kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
            // One that waits for a finalizer goes as soon as that is removed.
            if let Err(error) = api.delete(name, &now).await {
                tracing::debug!(%error, "the pod went meanwhile");
            }
        } else if let Some(code) = exit_code(&pod).filter(|_| !finished) {
            let ended = json!({"name": spec.containers[0].name, "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"terminated": {"exitCode": code, "finishedAt": Timestamp::now()}}});
            let phase = if code == 0 { "Succeeded" } else { "Failed" };
            let status = json!({"status": {"phase": phase, "containerStatuses": [ended]}});
            if let Err(error) = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await {
                tracing::debug!(%error, "the pod went meanwhile");
            }
        } else if !running
            && !finished
            && !name.contains("stuck")
            && spec.containers[0].image.as_deref() != Some("broken")
        {
            next += 1;
            let ip = format!("10.244.{}.{}", next / 250, next % 250 + 1);
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": Timestamp::now()});
            let status =
                json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [ready]}});
            if let Err(error) = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await {
                tracing::debug!(%error, "the pod went meanwhile");
            }
        }
    }
}

/// With what the pod's container ends at once: of the image `exit-3` with 3, of `exit-index` with the completion index.
fn exit_code(pod: &Pod) -> Option<i32> {
    let code = pod.spec.as_ref()?.containers[0].image.as_deref()?.strip_prefix("exit-")?;
    let index = pod.metadata.annotations.as_ref().and_then(|all| all.get("batch.kubernetes.io/job-completion-index"));
    if code == "index" { index?.parse().ok() } else { code.parse().ok() }
}

/// A Deployment of `replicas` pods labelled `app: NAME`.
pub fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// Patches the object's spec, as `kubectl patch` does.
pub async fn patch<K>(api: &Api<K>, name: &str, patch: Value) -> K
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.expect("patched")
}

/// As [`create`], through an [`Api`] of the kind.
pub async fn create_in_default<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
{
    let object: K = serde_json::from_value(object).expect("a valid object");
    api.create(&PostParams::default(), &object).await.expect("created")
}
