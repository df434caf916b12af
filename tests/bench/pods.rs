//! Pods from apply to all Ready, and from delete to all gone, on one node; beside it the container engine's own time for the same
//! containers without anyone else.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    kit::{
        Result,
        cluster::{Cluster, Place},
        images, run, wait,
    },
    report::Report,
};

const REPLICAS: [usize; 4] = [1, 20, 50, 150];
/// Containers the engine is asked for at once when it stands alone: more gained nothing.
const AT_ONCE: usize = 8;

pub fn run_bench(_peers: &Path, dir: &Path) -> Result {
    // 150 pods are more than a kubelet's default of 110.
    let cluster = Cluster::start_with("flpods", &[Place { link: 1, number: 11 }], &[], &["--max-pods", "200"])?;
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
    ready.note("each figure has one start of the command-line tool in it");
    ready.publish(dir)?;
    gone.publish(dir)
}

fn deployment(replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: load}}\nspec:\n  replicas: {replicas}\n\
         \x20 selector: {{matchLabels: {{app: load}}}}\n  template:\n    metadata: {{labels: {{app: load}}}}\n\
         \x20   spec:\n      terminationGracePeriodSeconds: 0\n      containers: [{{name: c, image: \"{}\", command: [sleep, \"1000000\"]}}]\n",
        images::WEB
    )
}

/// Seconds to start, and to remove, `count` pairs of containers of which the second joins the first's network.
fn engine_alone(cluster: &Cluster, count: usize) -> Result<(f64, f64)> {
    let docker = &cluster.nodes[0].docker;
    let start = Instant::now();
    in_parallel(count, |index| {
        let sandbox = format!("alone-{index}");
        docker.cli(&["run", "--detach", "--network=none", "--name", &sandbox, images::WEB, "sleep", "1000000"])?;
        let network = format!("--network=container:{sandbox}");
        let app = format!("alone-{index}-app");
        docker.cli(&["run", "--detach", &network, "--name", &app, images::WEB, "sleep", "1000000"]).map(|_| ())
    })?;
    let started = start.elapsed().as_secs_f64();
    let start = Instant::now();
    in_parallel(count, |index| {
        docker.cli(&["rm", "--force", &format!("alone-{index}-app"), &format!("alone-{index}")]).map(|_| ())
    })?;
    Ok((started, start.elapsed().as_secs_f64()))
}

fn in_parallel(count: usize, act: impl Fn(usize) -> Result + Sync) -> Result {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || -> Result {
            loop {
                let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if index >= count {
                    return Ok(());
                }
                act(index)?;
            }
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })
}
