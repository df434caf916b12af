//! Heartbeats of nodes while a client lists a hundred thousand objects again and again: how late the slowest are.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use serde_json::{Value, json};

use crate::{
    access_load::{Connection, Dialer, Question, config_of},
    api_load, api_writes,
    contestant::Contestant,
    kit::{Result, process::Process, wait},
    report::percentile,
};

const NODES: usize = 50;
/// Between two heartbeats of a node. Nodes send one in 10 s: as many as 2,000 nodes, so that there is a percentile.
const INTERVAL: Duration = Duration::from_millis(250);
const WATCH: Duration = Duration::from_secs(20);
const NAMESPACE: &str = "listed";
const MAPS: &str = "/api/v1/namespaces/listed/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const WRITERS: usize = 64;
const JSON: &str = "application/json";

pub struct Seen {
    pub alone_p99_ms: f64,
    pub beside_lists_p99_ms: f64,
    pub slowest_ms: f64,
    pub lists: usize,
}

pub async fn measure(contestant: &Contestant, objects: usize, dir: &Path) -> Result<Seen> {
    let server = &contestant.server;
    let clients = api_load::clients(server.config(), WRITERS)?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    api_writes::write(&clients[0], "POST", "/api/v1/namespaces", JSON, &namespace).await?;
    api_load::each(&clients, objects, |client, index| async move {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{index:06}")},
            "data": {"text": "x".repeat(100)}});
        api_writes::write(&client, "POST", MAPS, JSON, &map).await.map(drop)
    })
    .await?;
    let mut nodes = nodes(contestant, &clients[0]).await?;
    let mut alone = heartbeats(&mut nodes, WATCH).await?;

    // A process of its own, so that what it does with a list holds up no heartbeat on this side.
    let (name, kubeconfig) = (format!("lists-{}", server.name()), dir.join(format!("{}.kubeconfig", server.name())));
    std::fs::write(&kubeconfig, kubeconfig_text(contestant)?)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--lists").arg(&kubeconfig).arg(MAPS);
    let lister = Process::start(&name, command, dir)?;
    let lists = || std::fs::read_to_string(&lister.log).map(|log| log.lines().count());
    wait::until("the first list", Duration::from_secs(120), || match lists()? {
        0 => Err("it is not there".into()),
        _ => Ok(()),
    })?;
    let before = lists()?;
    let mut beside_lists = heartbeats(&mut nodes, WATCH).await?;
    let lists = lists()?.saturating_sub(before);
    if lists == 0 {
        return Err(format!("{} answered no list beside the heartbeats: nothing was measured", server.name()).into());
    }
    Ok(Seen {
        alone_p99_ms: percentile(&mut alone, 0.99),
        beside_lists_p99_ms: percentile(&mut beside_lists, 0.99),
        slowest_ms: percentile(&mut beside_lists, 1.0),
        lists,
    })
}

/// A connection of each node, and its Lease.
async fn nodes(contestant: &Contestant, admin: &Client) -> Result<Vec<(Connection, String, Value)>> {
    let mut nodes = Vec::new();
    for index in 0..NODES {
        let name = format!("beat-{index:02}");
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        api_writes::write(admin, "POST", "/api/v1/nodes", JSON, &node).await?;
        let user = format!("system:node:{name}");
        let config = config_of(contestant.server.config(), &contestant.authority, &user, Some("system:nodes"))?;
        let mut connection = Dialer::new(&config)?.connect(std::net::Ipv4Addr::LOCALHOST).await?;
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}});
        let made = connection.ask(&Question::send("POST", LEASES, &lease)).await?;
        nodes.push((connection, name, serde_json::from_slice(&made)?));
    }
    Ok(nodes)
}

/// Milliseconds from when each heartbeat was due until its answer.
async fn heartbeats(nodes: &mut [(Connection, String, Value)], duration: Duration) -> Result<Vec<f64>> {
    let start = Instant::now();
    let count = nodes.len() as u32;
    let beating = nodes.iter_mut().zip(0..).map(|((connection, name, lease), index)| async move {
        let mut times = Vec::new();
        // Spread evenly, as those of nodes that started at different times.
        let mut due = start + INTERVAL * index / count;
        while due < start + duration {
            tokio::time::sleep_until(due.into()).await;
            lease["spec"]["renewTime"] = json!(format!("2026-01-01T00:00:00.{:06}Z", times.len()));
            let renewed = connection.ask(&Question::send("PUT", format!("{LEASES}/{name}"), lease)).await?;
            times.push(due.elapsed().as_secs_f64() * 1e3);
            *lease = serde_json::from_slice(&renewed)?;
            due += INTERVAL;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times)
    });
    let all: Vec<Vec<f64>> = stream::iter(beating).buffer_unordered(NODES).try_collect().await?;
    Ok(all.concat())
}

fn kubeconfig_text(contestant: &Contestant) -> Result<String> {
    let config = config_of(contestant.server.config(), &contestant.authority, "lister", Some("system:masters"))?;
    let user = serde_json::to_value(&config.auth_info)?;
    let server = config.cluster_url.to_string();
    let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    Ok(text.to_string())
}

/// Lists `path` again and again until it is killed; a line for each list.
pub async fn list_without_end(kubeconfig: &Path, path: &str) -> Result {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    loop {
        let bytes = api_writes::get(&client, path, JSON).await?;
        println!("{bytes} bytes");
    }
}

/// The words of `main` that make this process the one that lists; `None` for a bench run.
pub fn as_child(arguments: &[String]) -> Option<Result> {
    let [flag, kubeconfig, path] = arguments else { return None };
    (flag == "--lists").then(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(list_without_end(Path::new(kubeconfig), path))
    })
}
