//! Queries a second that one core answers: 10,000 names, one query in sixteen for a name that is not there; CoreDNS
//! beside it.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use fairlead_node_agent::{
    dns,
    world::{ObjectName, Protocol, Service, ServiceKind, ServicePort, World},
};

use crate::{
    dns_load::{self, DnsThroughput, NAMES},
    kit::{Result, process::Process, wait},
    report::{Report, percentile},
};

const ROUNDS: usize = 5;
const SLICE: Duration = Duration::from_secs(2);
const FAIRLEAD: u16 = 15353;
const COREDNS: u16 = 15354;

pub fn run(peers: &Path, results: &Path) -> Result {
    let dir = tempfile::tempdir()?;
    let mut report = Report::new("dns", "DNS queries answered by one core", "names", "queries/s");
    let mut servers = vec![("fairlead", FAIRLEAD, start("--dns-serve", FAIRLEAD, dir.path())?)];
    match coredns(peers, dir.path())? {
        Some(process) => servers.push(("CoreDNS", COREDNS, process)),
        None => report.note(format!("no CoreDNS column: no coredns in {}", peers.display())),
    }
    for (name, port, process) in &mut servers {
        wait::until("the DNS server to answer", Duration::from_secs(60), || match process.is_running() {
            true => answers(*port),
            false => Err(format!("{name} ended:\n{}", process.tail()).into()),
        })?;
    }
    let mut seen: Vec<Vec<DnsThroughput>> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, port, _), seen) in servers.iter().zip(&mut seen) {
            seen.push(load(*port)?);
        }
    }
    for ((name, _, _), seen) in servers.iter().zip(&seen) {
        let mut rates: Vec<f64> = seen.iter().map(|seen| seen.per_second).collect();
        report.add(name, NAMES as f64, percentile(&mut rates, 0.5));
        let lost: u64 = seen.iter().map(|seen| seen.lost).sum();
        if lost > 0 {
            report.note(format!("{name}: {lost} queries lost"));
        }
    }
    report.publish(results)
}

/// This program again, as the server alone on the first core.
fn start(flag: &str, port: u16, dir: &Path) -> Result<Process> {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(std::env::current_exe()?).args([flag, &port.to_string()]);
    Process::start("fairlead-dns", command, dir)
}

fn load(port: u16) -> Result<DnsThroughput> {
    let mut command = Command::new("taskset");
    let milliseconds = SLICE.as_millis().to_string();
    command.args(["-c", "1"]).arg(std::env::current_exe()?).args(["--dns-load", &port.to_string(), &milliseconds]);
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn answers(port: u16) -> Result {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.connect((Ipv4Addr::LOCALHOST, port))?;
    socket.send(&dns_load::query(NAMES - 1))?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    // One answer, no error: the whole zone is there.
    if length > 12 && answer[3] & 0x0f == 0 && answer[7] == 1 { Ok(()) } else { Err("not yet".into()) }
}

/// The server of this project with `NAMES` Services, until it is killed.
pub fn serve(port: u16) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let services = (0..NAMES).map(service).map(|service| (service.name.clone(), Arc::new(service))).collect();
    let world = World { services, synced: true, revision: 1, ..World::default() };
    let (_publish, seen) = tokio::sync::watch::channel(Arc::new(world));
    let config = dns::DnsConfig {
        listen: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
        cluster_domain: "cluster.local".into(),
        resolv_conf: "/dev/null".into(),
        node_name: "bench".into(),
    };
    runtime.block_on(async {
        let dns = dns::start(config, seen).await?;
        std::future::pending::<()>().await;
        dns.shutdown().await;
        Ok(())
    })
}

fn service(number: usize) -> Service {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + number as u32);
    Service {
        revision: 1,
        ..Service::new(
            ObjectName::new("default", dns_load::service_name(number)),
            ServiceKind::ClusterIp(vec![address]),
            vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        )
    }
}

/// CoreDNS with the same names in a zone file, on one core.
fn coredns(peers: &Path, dir: &Path) -> Result<Option<Process>> {
    let program = peers.join("coredns");
    if !program.is_file() {
        return Ok(None);
    }
    let mut zone =
        "$ORIGIN cluster.local.\n@ 5 IN SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ 5 IN NS ns.dns\n".to_owned();
    for number in 0..NAMES {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + number as u32);
        writeln!(zone, "{}.default.svc 5 IN A {address}", dns_load::service_name(number))?;
    }
    std::fs::write(dir.join("zone"), zone)?;
    let corefile = format!("cluster.local:{COREDNS} {{\n  bind 127.0.0.1\n  file {}\n}}\n", dir.join("zone").display());
    std::fs::write(dir.join("Corefile"), corefile)?;
    let mut command = Command::new("taskset");
    command
        .args(["-c", "0"])
        .arg(program.canonicalize()?)
        .arg("-conf")
        .arg(dir.join("Corefile"))
        .env("GOMAXPROCS", "1");
    Ok(Some(Process::start("coredns", command, dir)?))
}
