//! What is asked of a control plane, the same of every contestant: nodes, pods, Deployments, lists, deletions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod},
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use crate::kit::Result;

/// Clients with a connection each, as so many programs would have.
pub fn clients(config: &kube::Config, count: usize) -> Result<Vec<Client>> {
    (0..count).map(|_| Ok(Client::try_from(config.clone())?)).collect()
}

/// Registers `count` nodes that are Ready and large enough for all pods to come.
pub async fn register_nodes(clients: &[Client], count: usize) -> Result {
    each(clients, count, |client, index| async move {
        let name = format!("bench-{index:04}");
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}))?;
        let api: Api<Node> = Api::all(client);
        api.create(&PostParams::default(), &node).await?;
        let resources = json!({"cpu": "32", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"});
        let status = json!({"status": {"capacity": resources, "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await?;
        Ok(())
    })
    .await
}

/// Nodes that are waited for have no taint that keeps pods away.
pub async fn nodes_schedulable(client: &Client, count: usize, patience: Duration) -> Result {
    let api: Api<Node> = Api::all(client.clone());
    let start = Instant::now();
    loop {
        let nodes = api.list(&ListParams::default()).await?;
        let open = nodes
            .items
            .iter()
            .filter(|n| n.spec.as_ref().is_none_or(|s| s.taints.as_ref().is_none_or(Vec::is_empty)))
            .count();
        if open >= count {
            return Ok(());
        }
        if start.elapsed() > patience {
            return Err(format!("{open} of {count} nodes take pods").into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Seconds from the first of `count` creates until all pods are bound, seen by a watch.
pub async fn create_and_schedule_pods(clients: &[Client], count: usize) -> Result<f64> {
    let watching = bound_pods(clients[0].clone(), "app=single".to_owned(), count);
    let start = Instant::now();
    let creating = each(clients, count, |client, index| async move {
        let pod: Pod = serde_json::from_value(pod(&format!("single-{index:05}")))?;
        Api::<Pod>::namespaced(client, "default").create(&PostParams::default(), &pod).await?;
        Ok(())
    });
    tokio::try_join!(watching, creating)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds from the create of a Deployment of `replicas` until all its pods are bound.
pub async fn schedule_deployment(client: &Client, replicas: usize) -> Result<f64> {
    let watching = bound_pods(client.clone(), "app=deployed".to_owned(), replicas);
    let start = Instant::now();
    let creating = async {
        let mut template = pod("unused");
        template["metadata"] = json!({"labels": {"app": "deployed"}});
        let deployment: Deployment = serde_json::from_value(json!({"metadata": {"name": "deployed"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "deployed"}}, "template": template}}))?;
        Api::<Deployment>::namespaced(client.clone(), "default").create(&PostParams::default(), &deployment).await?;
        Ok(())
    };
    tokio::try_join!(watching, creating)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Milliseconds of one LIST of all pods, as JSON or as a Table, body read to its end: the median of `rounds`.
pub async fn list_pods(client: &Client, accept: &str, rounds: usize) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let request = http::Request::get("/api/v1/namespaces/default/pods").header("Accept", accept).body(Vec::new())?;
        let start = Instant::now();
        let text = client.request_text(request).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        if text.len() < 1_000_000 {
            return Err(format!("a list of {} bytes is not one of all pods", text.len()).into());
        }
    }
    Ok(super::report::percentile(&mut times, 0.5))
}

/// Seconds until a deletecollection of all pods has left none. The answer, a list of all of them, is read to its end
/// and not decoded: that would be the client's work.
pub async fn delete_pods(client: &Client) -> Result<f64> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "default");
    let start = Instant::now();
    loop {
        let request = http::Request::delete("/api/v1/namespaces/default/pods?gracePeriodSeconds=0").body(Vec::new())?;
        // A peer's call ends at its own time limit with work left: asked again until nothing is left.
        if let Err(error) = client.request_text(request).await {
            eprintln!("deletecollection: {error}; asking again");
        }
        if api.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
            return Ok(start.elapsed().as_secs_f64());
        }
    }
}

/// A realistic pod of about 2.5 kB.
pub fn pod(name: &str) -> serde_json::Value {
    let env: Vec<_> =
        (0..12).map(|i| json!({"name": format!("SETTING_{i}"), "value": format!("value-{i}-of-a-setting")})).collect();
    json!({"metadata": {"name": name, "labels": {"app": "single", "tier": "bench"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "web", "image": "registry.example/web:1", "env": env,
            "ports": [{"containerPort": 8080}],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}}]}})
}

/// Ends when `count` pods of `selector` have a node.
async fn bound_pods(client: Client, selector: String, count: usize) -> Result {
    let api: Api<Pod> = Api::namespaced(client, "default");
    let pods = watcher(api, watcher::Config::default().labels(&selector)).applied_objects();
    let mut pods = std::pin::pin!(pods);
    let mut bound = std::collections::HashSet::new();
    while bound.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(300), pods.try_next()).await;
        let pod = next
            .map_err(|_| format!("{} of {count} pods are bound after five minutes without a change", bound.len()))??;
        let Some(pod) = pod else { return Err("the watch ended".into()) };
        if pod.spec.is_some_and(|spec| spec.node_name.is_some()) {
            bound.insert(pod.metadata.name);
        }
    }
    Ok(())
}

/// Runs `act` for `0..count`, one at a time a client.
pub async fn each<F, Fut>(clients: &[Client], count: usize, act: F) -> Result
where
    F: Fn(Client, usize) -> Fut + Sync,
    Fut: Future<Output = Result>,
{
    let next = Arc::new(AtomicUsize::new(0));
    let workers = clients.iter().map(|client| {
        let (next, act) = (next.clone(), &act);
        async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok(());
                }
                act(client.clone(), index).await?;
            }
        }
    });
    stream::iter(workers).buffer_unordered(clients.len()).try_collect::<Vec<()>>().await.map(|_| ())
}
