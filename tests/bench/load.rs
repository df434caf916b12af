//! The load generator and its server, run as processes of their own inside a pod's namespace and cgroup.
//!
//! The bench program starts itself again with one of the flags of [`as_child`]; nothing here knows who answers.

use std::{
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{agent_datapath, kit::Result, nft_events, program, services};

/// What one run of the generator saw.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Connects {
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub failed: u64,
}

/// Accepts on all addresses of `port`, writes one byte and closes, until it is killed.
pub fn serve(port: u16) -> Result {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let listener = listener.try_clone()?;
            Ok(std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    // The client resets; whether this byte arrived is the client's to say.
                    std::io::Write::write_all(&mut &stream, b"x").ok();
                }
            }))
        })
        .collect::<Result<_>>()?;
    workers.into_iter().for_each(|worker| drop(worker.join()));
    Ok(())
}

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connects to the targets in turn, waits for one byte and resets, again and again for `duration`. A reset leaves no
/// TIME_WAIT behind, so source ports are not what is measured.
pub fn connect(targets: &[SocketAddrV4], duration: Duration) -> Result<Connects> {
    let mut addresses = targets.iter().map(|target| SockAddr::from(*target)).cycle();
    let mut times = Vec::with_capacity(100_000);
    let mut failed = 0;
    let start = Instant::now();
    while start.elapsed() < duration {
        let address = addresses.next().ok_or("nothing to connect to")?;
        let before = Instant::now();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // Holds for connect(), too (socket(7)).
        socket.set_write_timeout(Some(PATIENCE))?;
        let connected = socket.connect(&address);
        times.push(before.elapsed().as_secs_f64() * 1e6);
        let mut byte = [MaybeUninit::uninit()];
        if connected.and_then(|()| socket.recv(&mut byte)).is_err() {
            failed += 1;
        }
    }
    let per_second = times.len() as f64 / start.elapsed().as_secs_f64();
    let p50_us = super::report::percentile(&mut times, 0.5);
    let p99_us = super::report::percentile(&mut times, 0.99);
    Ok(Connects { per_second, p50_us, p99_us, failed })
}

/// The words of `main` that make this process a generator or a server; `None` for a bench run.
pub fn as_child(arguments: &[String]) -> Option<Result> {
    let number = |text: &String| text.parse::<u64>();
    match arguments {
        [flag, port] if flag == "--serve" => Some(number(port).map_err(Into::into).and_then(|port| serve(port as u16))),
        [flag, milliseconds, targets @ ..] if flag == "--connect" => Some((|| {
            let targets = targets.iter().map(|target| target.parse()).collect::<std::result::Result<Vec<_>, _>>()?;
            let seen = connect(&targets, Duration::from_millis(number(milliseconds)?))?;
            print(&seen)
        })()),
        [flag] if flag == "--nft-events" => Some(nft_events::listen()),
        [flag, services, cgroup, pins] if flag == "--agent-datapath" => Some((|| {
            let (cgroup, pins) = (cgroup.into(), pins.into());
            print(&runtime()?.block_on(agent_datapath::child(number(services)? as usize, cgroup, pins))?)
        })()),
        [flag, kubeconfig, filler, address] if flag == "--change" => Some((|| {
            let (filler, address) = (number(filler)? as usize, address.parse()?);
            let kubeconfig = std::fs::read_to_string(kubeconfig)?;
            let change = async { services::change(&services::client(&kubeconfig).await?, filler, address).await };
            print(&runtime()?.block_on(change)?.0)
        })()),
        [flag, kubeconfig, from, to] if flag == "--fill" => Some((|| {
            let kubeconfig = std::fs::read_to_string(kubeconfig)?;
            runtime()?.block_on(services::fill(&kubeconfig, number(from)? as usize, number(to)? as usize))
        })()),
        [flag, kubeconfig, services, changes] if flag == "--changes" => Some((|| {
            let kubeconfig = std::fs::read_to_string(kubeconfig)?;
            let (services, changes) = (number(services)? as usize, number(changes)? as usize);
            print(&runtime()?.block_on(program::changes(&kubeconfig, services, changes))?)
        })()),
        _ => None,
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn print(seen: &impl Serialize) -> Result {
    println!("{}", serde_json::to_string(seen)?);
    Ok(())
}
