//! How long a change of one EndpointSlice takes until the kernel has it, with thousands of other Services; and a cold
//! start.
//!
//! Through the API the clock runs from the write's request to the agent's word that its kernel serves that revision
//! (over the API too), and to the kernel's own notification of kube-proxy's rule. In the agent it runs from the
//! snapshot to the written maps.

use std::{path::Path, time::Instant};

use crate::{
    agent_datapath,
    bench_cluster::BenchCluster,
    kit::Result,
    kube_proxy::{self, KubeProxy},
    nft_events::monotonic_ns,
    report::{Report, percentile},
    services,
};

const SERVICES: [usize; 3] = [1_000, 10_000, 50_000];
const CHANGES: usize = 100;
/// Each takes kube-proxy seconds.
const PEER_CHANGES: usize = 5;

pub fn run(peers: &Path, dir: &Path) -> Result {
    let mut bench = BenchCluster::start("ebpf")?;
    let mut report = Report::new("program", "One EndpointSlice change until the kernel has it", "Services", "ms");
    let mut agent = Report::new("program-agent", "One change in the agent, snapshot to kernel maps", "Services", "ms");
    let mut cold = Report::new("cold-start", "Cold start until the kernel has everything", "Services", "s");
    let alone = bench.cluster.lab.host("alone", 1, 41)?;
    let mut peer = match KubeProxy::start(peers, &mut bench)? {
        Ok(peer) => Some(peer),
        Err(why) => {
            report.note(why);
            None
        }
    };
    for count in SERVICES {
        let x = count as f64;
        if count > kube_proxy::MOST_SERVICES {
            peer = None;
        }
        eprintln!("program: {count} Services");
        bench.fill(count)?;
        if let Some(peer) = &mut peer {
            // The first waits for all that came before it.
            peer.change(&bench, 1)?;
            let changes = (0..PEER_CHANGES).map(|turn| peer.change(&bench, 2 + turn * (count - 3) / PEER_CHANGES));
            let mut times = changes.collect::<Result<Vec<f64>>>()?;
            report.add("kube-proxy p50", x, percentile(&mut times, 0.5));
            report.add("kube-proxy slowest", x, percentile(&mut times, 1.0));
        }
        let mut child = bench.cluster.control_host.command(std::env::current_exe()?);
        child.arg("--changes").arg(bench.cluster.kubeconfig()).args([count.to_string(), CHANGES.to_string()]);
        let mut times: Vec<f64> = serde_json::from_str(&crate::kit::run(&mut child)?)?;
        report.add("fairlead p50", x, percentile(&mut times, 0.5));
        report.add("fairlead p99", x, percentile(&mut times, 0.99));
        report.add("fairlead slowest", x, percentile(&mut times, 1.0));
        let mut seen = agent_datapath::measure(&alone, count)?;
        agent.add("p50", x, percentile(&mut seen.changes_ms, 0.5));
        agent.add("p99", x, percentile(&mut seen.changes_ms, 0.99));
        agent.add("slowest", x, percentile(&mut seen.changes_ms, 1.0));
        cold.add("in the agent, from a snapshot", x, seen.cold_start_s);
        let mut killed = bench.cluster.nodes[0].agent.take().ok_or("no agent")?;
        killed.kill()?;
        let start = Instant::now();
        bench.cluster.restart_agent(0, &["--datapath", "ebpf"])?;
        bench.wait_until_applied()?;
        cold.add("agent process killed and started, maps adopted", x, start.elapsed().as_secs_f64());
    }
    report.note("fairlead: from the PUT to the agent's word, both through the API server");
    report.note("kube-proxy: from the PUT to the kernel's notification of its rule, each change alone");
    report.publish(dir)?;
    agent.publish(dir)?;
    cold.publish(dir)
}

/// Changes `changes` slices one after the other; milliseconds of each until node-1's kernel has it.
pub async fn changes(kubeconfig: &str, services: usize, changes: usize) -> Result<Vec<f64>> {
    let client = services::client(kubeconfig).await?;
    let mut times = Vec::new();
    for turn in 1..=changes {
        let number = 1 + turn * (services - 2) / changes;
        let (sent_ns, revision) = services::change(&client, number, services::address(number + 31_000 + turn)).await?;
        let applied = format!("/api/v1/nodes/node-1/proxy/inspect/applied/{revision}");
        client.request_text(http::Request::get(applied).body(Vec::new())?).await?;
        times.push((monotonic_ns() - sent_ns) as f64 / 1e6);
    }
    Ok(times)
}
