//! What server and agent cost while nothing happens: memory, processor and disk, empty and with 50 pods.

use std::{path::Path, time::Duration};

use crate::{
    kit::{
        Result,
        cluster::{Cluster, NodePlacement},
        images,
        process::Process,
        run,
    },
    report::Report,
};

/// How long idleness is watched.
const WATCH: Duration = Duration::from_secs(60);

pub fn run_bench(_peers: &Path, dir: &Path) -> Result {
    let cluster = Cluster::start("flfoot", &[NodePlacement { link: 1, number: 11 }])?;
    let mut memory = Report::new("footprint-memory", "Resident memory while idle", "pods", "MiB");
    let mut processor = Report::new("footprint-cpu", "Processor while idle", "pods", "% of a core");
    let mut disk = Report::new("footprint-disk", "Disk writes while idle", "pods", "KiB a minute");
    for pods in [0, 50] {
        if pods > 0 {
            cluster.apply(&format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: idle}}\nspec:\n  replicas: {pods}\n\
                 \x20 selector: {{matchLabels: {{app: idle}}}}\n  template:\n    metadata: {{labels: {{app: idle}}}}\n\
                 \x20   spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: c, image: \"{}\", command: \
                 [sleep, \"1000000\"]}}]}}\n",
                images::WEB
            ))?;
            run(&mut cluster.fairlead(&["rollout", "status", "deployment/idle", "--timeout=300s"]))?;
        }
        let agent = cluster.nodes[0].agent.as_ref().ok_or("no agent")?;
        let server = cluster.control.as_ref().ok_or("no control service")?;
        let programs = [("server", server), ("agent", agent)];
        let before = programs.map(|(_, process)| Use::of(process));
        // The measurement itself: a stretch of time in which nothing is asked of anyone.
        std::thread::sleep(WATCH);
        for ((name, process), before) in programs.into_iter().zip(before) {
            let (before, after) = (before?, Use::of(process)?);
            let minutes = WATCH.as_secs_f64() / 60.0;
            memory.add(name, f64::from(pods), after.resident_kib / 1024.0);
            processor.add(name, f64::from(pods), (after.seconds - before.seconds) / WATCH.as_secs_f64() * 100.0);
            disk.add(name, f64::from(pods), (after.written_bytes - before.written_bytes) / 1024.0 / minutes);
        }
    }
    memory.publish(dir)?;
    processor.publish(dir)?;
    disk.publish(dir)
}

/// What a process has used so far.
struct Use {
    resident_kib: f64,
    seconds: f64,
    written_bytes: f64,
}

impl Use {
    fn of(process: &Process) -> Result<Self> {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", process.pid()));
        let field = |text: &str, name: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
            Ok(line.trim().trim_end_matches(" kB").parse()?)
        };
        let stat = read("stat")?;
        // Fields 14 and 15, counted behind the name, which may hold blanks.
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = behind_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<f64>())
            .sum::<std::result::Result<f64, _>>()?;
        // SAFETY: sysconf has no preconditions.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        Ok(Self {
            resident_kib: field(&read("status")?, "VmRSS:")?,
            seconds: ticks / per_second,
            written_bytes: field(&read("io")?, "write_bytes:")?,
        })
    }
}
