//! Connections a second from a pod through a Service to a pod on another node, against the same without a Service.
//!
//! Direct runs go to the same pods in turn. Direct and Service runs alternate; what counts is their ratio in one round,
//! and that it does not fall with more Services. kube-proxy's pod is behind a host of its own, and is compared with its
//! own direct connections to the same servers.

use std::{path::Path, time::Duration};

use crate::{
    bench_cluster::{BenchCluster, PodNamespace},
    kit::Result,
    kube_proxy::{self, KubeProxy},
    load::Connects,
    report::{Report, percentile},
};

const SERVICES: [usize; 4] = [1, 1_000, 10_000, 50_000];
const ROUNDS: usize = 11;
const SLICE: Duration = Duration::from_secs(1);

pub fn run(peers: &Path, dir: &Path) -> Result {
    let mut bench = BenchCluster::start("ebpf")?;
    let mut reports = Reports::new();
    let mut peer = match KubeProxy::start(peers, &mut bench)? {
        Ok(peer) => Some(peer),
        Err(why) => {
            reports.rate.note(why);
            None
        }
    };
    for services in SERVICES {
        if services > kube_proxy::MOST_SERVICES {
            peer = None;
        }
        eprintln!("connect: {services} Services");
        bench.fill(services)?;
        if let Some(peer) = peer.as_mut().filter(|_| services > 1) {
            // Until it has taken in what came before.
            peer.change(&bench, 1)?;
        }
        let mut clients = vec![("fairlead", &bench.client, Pairs::default())];
        clients.extend(peer.as_ref().map(|peer| ("kube-proxy", &peer.client, Pairs::default())));
        for round in 0..ROUNDS {
            for (_, client, pairs) in &mut clients {
                pairs.measure(&bench, client, round % 2 == 0)?;
            }
        }
        for (name, _, pairs) in clients {
            reports.add(name, services, &pairs);
        }
        bench.check()?;
    }
    reports.publish(dir)
}

/// Runs of one client, direct and through the Service, in pairs.
#[derive(Default)]
struct Pairs {
    direct: Vec<Connects>,
    through: Vec<Connects>,
}

impl Pairs {
    /// One pair; which comes first takes turns.
    fn measure(&mut self, bench: &BenchCluster, client: &PodNamespace, direct_first: bool) -> Result {
        if direct_first {
            self.direct.push(client.connects(&bench.direct, SLICE)?);
        }
        self.through.push(client.connects(&[bench.service], SLICE)?);
        if !direct_first {
            self.direct.push(client.connects(&bench.direct, SLICE)?);
        }
        Ok(())
    }
}

struct Reports {
    rate: Report,
    ratio: Report,
    latency: Report,
}

impl Reports {
    fn new() -> Self {
        let title = "Connections from a pod to a pod on another node";
        Self {
            rate: Report::new("connect", title, "Services", "connections/s"),
            ratio: Report::new(
                "connect-ratio",
                "Connections through a Service, as a share of direct ones",
                "Services",
                "ratio of rates",
            ),
            latency: Report::new("connect-latency", "Time of connect()", "Services", "µs"),
        }
    }

    fn add(&mut self, name: &str, services: usize, pairs: &Pairs) {
        let x = services as f64;
        let failed: u64 = pairs.direct.iter().chain(&pairs.through).map(|seen| seen.failed).sum();
        if failed > 0 {
            self.rate.note(format!("{name}: {failed} connections failed at {services} Services"));
        }
        let direct = format!("direct, beside {name}");
        self.rate.add(&direct, x, median(pairs.direct.iter().map(|seen| seen.per_second)));
        self.rate.add(name, x, median(pairs.through.iter().map(|seen| seen.per_second)));
        let ratios = pairs.direct.iter().zip(&pairs.through).map(|(d, t)| t.per_second / d.per_second);
        self.ratio.add(name, x, median(ratios));
        for (what, runs) in [(direct.as_str(), &pairs.direct), (name, &pairs.through)] {
            self.latency.add(&format!("{what} p50"), x, median(runs.iter().map(|seen| seen.p50_us)));
            self.latency.add(&format!("{what} p99"), x, median(runs.iter().map(|seen| seen.p99_us)));
        }
    }

    fn publish(&self, dir: &Path) -> Result {
        self.rate.publish(dir)?;
        self.ratio.publish(dir)?;
        self.latency.publish(dir)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    percentile(&mut values.collect::<Vec<_>>(), 0.5)
}
