//! Access: what it costs to let somebody in, beside the real kube-apiserver and etcd. Connections, RBAC, tokens,
//! heartbeats beside large lists, and streams to pods.
//!
//! `FAIRLEAD_BENCH_SCALE` is the share of the sizes in percent, up to 100. `FAIRLEAD_BENCH_PARTS` names the parts that
//! are measured, separated by commas; all, unless it is given.
//!
//! Clients run on the same machine, so that rates depend on what else it does; the processor time that a server takes
//! for one answer hardly does.

use std::{path::Path, time::SystemTime};

use fairlead_control::auth::pki::Authority;

use crate::{
    access_connections::{self, Origin},
    access_heartbeats, access_rbac, access_streams, access_tokens,
    contestant::{Contestant, Server},
    fairlead_server::FairleadServer,
    kit::Result,
    kube_apiserver::{self, KubeApiServer},
    kubernetes::WITHOUT_LIMITS,
    parts::Parts,
    report::Report,
};

/// The steps, numbered as they stand in the table.
const STEPS: [&str; 43] = [
    "1: TLS connections of 100 users at 100 addresses, opened at once and answered",
    "2: of these, refused",
    "3: until all were answered, s",
    "4: resident memory with all of them open (without etcd's), MiB",
    "5: resident memory that they added, MiB",
    "6: TLS connections of one user at one address, opened at once and answered",
    "7: of these, refused",
    "8: until all were answered, s",
    "9: resident memory with all of them open (without etcd's), MiB",
    "10: resident memory that they added, MiB",
    "11: reads by a user with one right, hardly any roles and bindings, 1/s",
    "12: reads by an administrator, hardly any roles and bindings, 1/s",
    "13: reads by a user with one right, in the last of all bindings, 1/s",
    "14: reads by a user of all bindings, 1/s",
    "15: reads by an administrator, beside all roles and bindings, 1/s",
    "16: 13 as a share of 15 in the same round",
    "17: 14 as a share of 15 in the same round",
    "18: processor time of the server for 11, µs",
    "19: processor time of the server for 12, µs",
    "20: processor time of the server for 13, µs",
    "21: processor time of the server for 14, µs",
    "22: processor time of the server for 15, µs",
    "23: 22 as a share of 20 in the same round",
    "24: 22 as a share of 21 in the same round",
    "25: TokenRequests, 1/s",
    "26: TokenReviews, each of another token, 1/s",
    "27: TokenReviews of one token, 1/s",
    "28: reads with a ServiceAccount's token, 1/s",
    "29: processor time of the server for 25, µs",
    "30: processor time of the server for 26, µs",
    "31: processor time of the server for 27, µs",
    "32: processor time of the server for 28, µs",
    "33: renewal of a Lease by its node, 99th percentile, ms",
    "34: the same while a client lists all objects again and again, ms",
    "35: the slowest of these, ms",
    "36: lists meanwhile, in 20 s",
    "37: exec to the first byte, median, ms (the engine's column: asked by its socket)",
    "38: exec to the first byte, 99th percentile, ms",
    "39: download through port-forward, MiB/s (the column of plain TCP: from pod to pod)",
    "40: 13 as a share of the same where every request is allowed, in the same round",
    "41: 14 as a share of the same where every request is allowed, in the same round",
    "42: processor time for 13 where every request is allowed, as a share of 20 in the same round",
    "43: processor time for 14 where every request is allowed, as a share of 21 in the same round",
];

/// How much is measured.
struct Sizes {
    connections: usize,
    rbac: access_rbac::Sizes,
    tokens: usize,
    listed: usize,
}

impl Sizes {
    fn given() -> Result<Self> {
        let percent = std::env::var("FAIRLEAD_BENCH_SCALE").ok().map(|text| text.parse::<usize>()).transpose()?;
        let percent = percent.unwrap_or(100).min(100);
        let scaled = |full: usize| (full * percent / 100).max(2);
        Ok(Self {
            connections: scaled(10_000),
            rbac: access_rbac::Sizes { roles: scaled(1_000), bindings: scaled(5_000), rounds: scaled(7) },
            tokens: scaled(2_000),
            listed: scaled(100_000),
        })
    }
}

const CONNECTIONS: &str = "connections";
const RBAC: &str = "rbac";
const TOKENS: &str = "tokens";
const HEARTBEATS: &str = "heartbeats";
const STREAMS: &str = "streams";

pub fn run(peers: &Path, dir: &Path) -> Result {
    let (sizes, parts) = (Sizes::given()?, Parts::given(&[CONNECTIONS, RBAC, TOKENS, HEARTBEATS, STREAMS])?);
    let mut report = Report::new("access", "Access", "step", "as the step says");
    for step in STEPS {
        report.note(step);
    }
    report.note(format!(
        "{} connections; {} Roles and {} RoleBindings of one namespace; {} objects listed beside the heartbeats of 50 \
         nodes, each four times a second",
        sizes.connections, sizes.rbac.roles, sizes.rbac.bindings, sizes.listed
    ));
    if [CONNECTIONS, RBAC, TOKENS, HEARTBEATS].iter().any(|part| parts.measures(part)) {
        access_connections::raise_descriptors(sizes.connections)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(servers(peers, &sizes, &parts, &mut report))?;
    }
    if parts.measures(STREAMS) {
        let seen = access_streams::measure()?;
        report.add("fairlead", 37.0, seen.exec_p50_ms);
        report.add("the engine", 37.0, seen.engine_exec_p50_ms);
        report.add("fairlead", 38.0, seen.exec_p99_ms);
        report.add("fairlead", 39.0, seen.forwarded_mib_per_second);
        report.add("plain TCP", 39.0, seen.direct_mib_per_second);
        report.note(format!("port-forward as a share of plain TCP, median of the rounds: {:.3}", seen.ratio));
        report.note("37 to 39 need a node, of which kube-apiserver alone has none");
    }
    report.publish(dir)
}

async fn servers(peers: &Path, sizes: &Sizes, parts: &Parts, report: &mut Report) -> Result {
    let work = tempfile::tempdir()?;
    let mut contestants = Vec::new();
    let server = FairleadServer::start(work.path(), &["--api-only"]).await?;
    let authority = server.authority()?;
    contestants.push(Contestant { server: Server::Fairlead(server), authority });
    match kube_apiserver::missing(peers, &kube_apiserver::PARTS) {
        Some(why) => report.note(why),
        None => {
            let authority = Authority::create(SystemTime::now().into())?.0;
            let ca = work.path().join("clients-ca.crt");
            std::fs::write(&ca, authority.certificate_pem())?;
            let ca = format!("--client-ca-file={}", ca.display());
            let mut flags = vec![&*ca, "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"];
            flags.extend(WITHOUT_LIMITS);
            let server = KubeApiServer::start(peers, &work.path().join("kubernetes"), &flags).await?;
            contestants.push(Contestant { server: Server::Kubernetes(server), authority });
        }
    }
    let outcome = measure(&contestants, sizes, parts, report, work.path()).await;
    outcome.map_err(|error| {
        let ended: Vec<String> = contestants.iter_mut().filter_map(|contestant| contestant.server.ended()).collect();
        format!("{error}\n{}", ended.join("\n")).into()
    })
}

async fn measure(contestants: &[Contestant], sizes: &Sizes, parts: &Parts, report: &mut Report, dir: &Path) -> Result {
    if parts.measures(CONNECTIONS) {
        for (first, origin) in [(1, Origin::Many), (6, Origin::One)] {
            for contestant in contestants {
                let seen = access_connections::measure(contestant, sizes.connections, origin).await?;
                let name = contestant.server.name();
                let figures =
                    [seen.served as f64, seen.refused as f64, seen.seconds, seen.resident_mib, seen.added_mib];
                add(report, name, first, figures);
                if let Some(why) = seen.why_refused {
                    report.note(format!("{name} refused, {origin:?}: {why}"));
                }
            }
        }
    }
    if parts.measures(RBAC) || parts.measures(TOKENS) {
        for contestant in contestants {
            access_rbac::prepare(contestant).await?;
        }
    }
    if parts.measures(TOKENS) {
        for contestant in contestants {
            let seen = access_tokens::measure(contestant, sizes.tokens).await?;
            let rates = [seen.requests, seen.first_reviews, seen.reviews_of_one, seen.reads];
            add(report, contestant.server.name(), 25, rates.map(|rate| rate.per_second));
            add(report, contestant.server.name(), 29, rates.map(|rate| rate.processor_micros));
        }
    }
    if parts.measures(RBAC) {
        rbac(contestants, sizes.rbac, report, dir).await?;
    }
    if parts.measures(HEARTBEATS) {
        for contestant in contestants {
            let seen = access_heartbeats::measure(contestant, sizes.listed, dir).await?;
            let figures = [seen.alone_p99_ms, seen.beside_lists_p99_ms, seen.slowest_ms, seen.lists as f64];
            add(report, contestant.server.name(), 33, figures);
        }
    }
    Ok(())
}

/// Beside another fairlead, whose users need no roles.
async fn rbac(contestants: &[Contestant], sizes: access_rbac::Sizes, report: &mut Report, dir: &Path) -> Result {
    let server =
        FairleadServer::start(&dir.join("allowing"), &["--api-only", "--authorization-mode=AlwaysAllow"]).await?;
    let authority = server.authority()?;
    let allowing = Contestant { server: Server::FairleadAllowingAll(server), authority };
    access_rbac::prepare(&allowing).await?;
    let all: Vec<&Contestant> = contestants.iter().chain([&allowing]).collect();
    for (contestant, seen) in all.iter().zip(access_rbac::measure(&all, sizes).await?) {
        let name = contestant.server.name();
        add(report, name, 11, seen.without.map(|rate| rate.per_second));
        add(report, name, 13, seen.with.map(|rate| rate.per_second));
        add(report, name, 16, seen.share);
        add(report, name, 18, seen.without.map(|rate| rate.processor_micros));
        add(report, name, 20, seen.with.map(|rate| rate.processor_micros));
        add(report, name, 23, seen.processor_share);
        // The comparison is within fairlead: what kube-apiserver's requests cost otherwise is not RBAC's.
        if let (Server::Fairlead(_), Some(rate), Some(processor)) =
            (&contestant.server, seen.share_of_allowed, seen.processor_share_of_allowed)
        {
            add(report, name, 40, rate);
            add(report, name, 42, processor);
        }
    }
    Ok(())
}

/// Figures of consecutive steps.
fn add<const N: usize>(report: &mut Report, column: &str, first: u32, figures: [f64; N]) {
    for (step, figure) in (first..).zip(figures) {
        report.add(column, f64::from(step), figure);
    }
}
