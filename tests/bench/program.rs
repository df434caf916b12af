//! How long a change of one EndpointSlice takes until every kernel map has it, with thousands of other Services.
//!
//! The clock runs from the write's request to the agent's word that the revision is applied, over the API both times.

use std::{path::Path, time::Instant};

use crate::{
    bench_cluster::BenchCluster,
    kit::Result,
    report::{Report, percentile},
    services,
};

const SERVICES: [usize; 3] = [1_000, 10_000, 50_000];
const CHANGES: usize = 50;

pub fn run(_peers: &Path, dir: &Path) -> Result {
    let mut bench = BenchCluster::start("ebpf")?;
    let mut report = Report::new("program", "One EndpointSlice change until the kernel has it", "Services", "ms");
    let mut cold = Report::new("cold-start", "Agent started anew until the kernel has everything", "Services", "s");
    for count in SERVICES {
        bench.fill(count)?;
        let mut child = bench.cluster.control_host.command(std::env::current_exe()?);
        child.arg("--changes").arg(bench.cluster.kubeconfig()).args([count.to_string(), CHANGES.to_string()]);
        let mut times: Vec<f64> = serde_json::from_str(&crate::kit::run(&mut child)?)?;
        report.add("p50", count as f64, percentile(&mut times, 0.5));
        report.add("p99", count as f64, percentile(&mut times, 0.99));
        let mut agent = bench.cluster.nodes[0].agent.take().ok_or("no agent")?;
        agent.kill()?;
        let start = Instant::now();
        bench.cluster.restart_agent(0, &["--datapath", "ebpf"])?;
        bench.wait_until_applied()?;
        cold.add("fairlead", count as f64, start.elapsed().as_secs_f64());
    }
    report.note("from the PUT to the agent's word, both through the API server");
    report.publish(dir)?;
    cold.publish(dir)
}

/// Changes `changes` slices one after the other; milliseconds of each until node-1's kernel has it.
pub async fn changes(kubeconfig: &str, services: usize, changes: usize) -> Result<Vec<f64>> {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig)?;
    let client = kube::Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?;
    let mut times = Vec::new();
    for turn in 1..=changes {
        let number = 1 + turn * (services - 2) / changes;
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/filler-{number:05}");
        let body = serde_json::to_vec(&services::slice(number, turn))?;
        let put = http::Request::put(path).header("Content-Type", "application/json").body(body)?;
        let start = Instant::now();
        let stored: serde_json::Value = client.request(put).await?;
        let revision = stored["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let applied = format!("/api/v1/nodes/node-1/proxy/inspect/applied/{revision}");
        client.request_text(http::Request::get(applied).body(Vec::new())?).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}
