//! Pods from apply to all Ready, and from delete to all gone, on one node; beside it the container engine's own time
//! for the same containers, asked by its API without anyone else.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bollard::models::{ContainerCreateBody, HostConfig};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    kit::{
        Result,
        cluster::{Cluster, NodePlacement},
        images, run, wait,
    },
    report::Report,
};

const REPLICAS: [usize; 4] = [1, 20, 50, 150];
/// Containers the engine is asked for at once when it stands alone: more gained nothing.
const AT_ONCE: usize = 8;

pub fn run_bench(_peers: &Path, dir: &Path) -> Result {
    // 150 pods are more than a kubelet's default of 110.
    let cluster = Cluster::start_with("flpods", &[NodePlacement { link: 1, number: 11 }], &[], &["--max-pods", "200"])?;
    let mut ready = Report::new("pods-ready", "Apply to all Ready", "replicas", "s");
    let mut gone = Report::new("pods-gone", "Delete to all gone", "replicas", "s");
    for replicas in REPLICAS {
        let engine = engine_alone(&cluster, replicas)?;
        let start = Instant::now();
        cluster.apply(&deployment(replicas))?;
        let mut waiting = cluster.fairlead(&["rollout", "status", "deployment/load", "--timeout=300s"]);
        run(&mut waiting)?;
        ready.add("fairlead", replicas as f64, start.elapsed().as_secs_f64());
        ready.add("Docker Engine alone", replicas as f64, engine.0);
        let start = Instant::now();
        run(&mut cluster.fairlead(&["delete", "deployment", "load"]))?;
        wait::until("all pods to be gone", Duration::from_secs(300), || {
            let left = cluster.pods("app=load")?.len();
            if left == 0 { Ok(()) } else { Err(format!("{left} are left").into()) }
        })?;
        gone.add("fairlead", replicas as f64, start.elapsed().as_secs_f64());
        gone.add("Docker Engine alone", replicas as f64, engine.1);
    }
    ready.note("fairlead: from the start of `apply` to the end of `rollout status`");
    ready.note("Docker Engine alone: its API asked for the same containers, eight pairs at a time");
    ready.publish(dir)?;
    gone.publish(dir)
}

/// Ends when it is asked to, as programs should: a shell as process 1 would not by itself.
const COMMAND: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"];

fn deployment(replicas: usize) -> String {
    let [shell, flag, line] = COMMAND;
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: load}}\nspec:\n  replicas: {replicas}\n\
         \x20 selector: {{matchLabels: {{app: load}}}}\n  template:\n    metadata: {{labels: {{app: load}}}}\n\
         \x20   spec:\n      containers: [{{name: c, image: \"{}\", command: [{shell}, {flag}, \"{line}\"]}}]\n",
        images::WEB
    )
}

/// Seconds to start, and to stop and remove, `count` pairs of containers of which the second joins the first's network,
/// through the Engine's API.
fn engine_alone(cluster: &Cluster, count: usize) -> Result<(f64, f64)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let engine = bollard::Docker::connect_with_host(&cluster.nodes[0].docker.url())?.negotiate_version().await?;
        let start = Instant::now();
        let pairs: Vec<[String; 2]> =
            stream::iter(0..count).map(|_| start_pair(&engine)).buffer_unordered(AT_ONCE).try_collect().await?;
        let started = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let ends = stream::iter(&pairs).map(|pair| end_pair(&engine, pair)).buffer_unordered(AT_ONCE);
        ends.try_collect::<Vec<()>>().await?;
        Ok((started, start.elapsed().as_secs_f64()))
    })
}

async fn start_pair(engine: &bollard::Docker) -> Result<[String; 2]> {
    let sandbox = start_container(engine, "none".to_owned()).await?;
    let joined = start_container(engine, format!("container:{sandbox}")).await?;
    Ok([joined, sandbox])
}

async fn start_container(engine: &bollard::Docker, network_mode: String) -> Result<String> {
    let body = ContainerCreateBody {
        image: Some(images::WEB.to_owned()),
        cmd: Some(COMMAND.map(str::to_owned).to_vec()),
        host_config: Some(HostConfig { network_mode: Some(network_mode), ..Default::default() }),
        ..Default::default()
    };
    let id = engine.create_container(None, body).await?.id;
    engine.start_container(&id, None).await?;
    Ok(id)
}

async fn end_pair(engine: &bollard::Docker, pair: &[String; 2]) -> Result {
    for id in pair {
        engine.stop_container(id, None).await?;
        engine.remove_container(id, None).await?;
    }
    Ok(())
}
