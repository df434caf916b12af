//! Connections a second from a pod through a Service to a pod on another node, against the same without a Service.
//!
//! Direct and Service runs alternate; what counts is their ratio in one round, and that it does not fall with more Services.

use std::{path::Path, time::Duration};

use crate::{
    bench_cluster::BenchCluster,
    kit::Result,
    report::{Report, percentile},
};

const SERVICES: [usize; 4] = [1, 1_000, 10_000, 50_000];
const ROUNDS: usize = 7;
const SLICE: Duration = Duration::from_secs(1);

pub fn run(_peers: &Path, dir: &Path) -> Result {
    let mut bench = BenchCluster::start("ebpf")?;
    let mut rate =
        Report::new("connect", "Connections from a pod to a pod on another node", "Services", "connections/s");
    let mut ratio = Report::new(
        "connect-ratio",
        "Connections through a Service, as a share of direct ones",
        "Services",
        "ratio of rates",
    );
    let mut latency = Report::new("connect-latency", "Time of connect()", "Services", "µs");
    for services in SERVICES {
        bench.fill(services)?;
        let (mut direct, mut through) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            direct.push(bench.client.connects(bench.direct, SLICE)?);
            through.push(bench.client.connects(bench.service, SLICE)?);
        }
        bench.check()?;
        let failed: u64 = direct.iter().chain(&through).map(|c| c.failed).sum();
        if failed > 0 {
            rate.note(format!("{failed} connections failed at {services} Services"));
        }
        let x = services as f64;
        let median = |of: &mut dyn Iterator<Item = f64>| percentile(&mut of.collect::<Vec<_>>(), 0.5);
        rate.add("direct", x, median(&mut direct.iter().map(|c| c.per_second)));
        rate.add("fairlead", x, median(&mut through.iter().map(|c| c.per_second)));
        ratio.add("fairlead", x, median(&mut direct.iter().zip(&through).map(|(d, t)| t.per_second / d.per_second)));
        latency.add("direct p50", x, median(&mut direct.iter().map(|c| c.p50_us)));
        latency.add("direct p99", x, median(&mut direct.iter().map(|c| c.p99_us)));
        latency.add("fairlead p50", x, median(&mut through.iter().map(|c| c.p50_us)));
        latency.add("fairlead p99", x, median(&mut through.iter().map(|c| c.p99_us)));
    }
    rate.publish(dir)?;
    ratio.publish(dir)?;
    latency.publish(dir)
}
