//! Streams to pods: exec until the first byte of output beside the container engine's own, and a download through
//! port-forward beside the same from another pod over plain TCP.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Instant,
};

use bollard::{
    container::LogOutput,
    exec::{CreateExecOptions, StartExecResults},
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::AttachParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::io::AsyncReadExt;

use crate::{
    bench_cluster::{BenchCluster, PodNamespace},
    kit::{Result, process::Process, run},
    report::percentile,
};

const POD: &str = "server-1";
const PORT: u16 = 9001;
const EXECS: usize = 50;
const DOWNLOADS: usize = 5;
const BYTES: u64 = 512 << 20;
const PIECE: usize = 256 << 10;

/// What streams showed.
pub struct StreamsSeen {
    pub exec_p50_ms: f64,
    pub exec_p99_ms: f64,
    pub engine_exec_p50_ms: f64,
    pub direct_mib_per_second: f64,
    pub forwarded_mib_per_second: f64,
    /// Median of the ratios of one round.
    pub ratio: f64,
}

pub fn measure() -> Result<StreamsSeen> {
    let bench = BenchCluster::start("ebpf")?;
    let cluster = &bench.cluster;
    let this = std::env::current_exe()?;
    let mut command = PodNamespace::of(cluster, POD)?.command(&this);
    command.arg("--serve-bytes").arg(PORT.to_string());
    let _server = Process::start("bytes", command, cluster.dir.path())?;
    let in_control = |words: &[&str]| -> Result<Vec<f64>> {
        let mut command = cluster.control_host.command(&this);
        command.args(words).arg(cluster.kubeconfig());
        Ok(serde_json::from_str(&run(&mut command)?)?)
    };

    let mut execs = in_control(&["--execs", POD])?;
    let id = cluster.get(&["pod", POD])?["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .unwrap_or_default()
        .trim_start_matches("docker://")
        .to_owned();
    let mut engine = runtime()?.block_on(engine_execs(&cluster.nodes[1].docker.url(), &id))?;

    let address = SocketAddr::new((*bench.direct[0].ip()).into(), PORT).to_string();
    let (mut direct, mut forwarded) = (Vec::new(), Vec::new());
    for _ in 0..DOWNLOADS {
        let mut command = bench.client.command(&this);
        let seconds: f64 = serde_json::from_str(&run(command.args(["--download", &address]))?)?;
        direct.push(mib_per_second(seconds));
        forwarded.extend(in_control(&["--forwarded-download", POD])?.into_iter().map(mib_per_second));
    }
    let mut ratios: Vec<f64> = direct.iter().zip(&forwarded).map(|(direct, forwarded)| forwarded / direct).collect();
    Ok(StreamsSeen {
        exec_p50_ms: percentile(&mut execs, 0.5),
        exec_p99_ms: percentile(&mut execs, 0.99),
        engine_exec_p50_ms: percentile(&mut engine, 0.5),
        direct_mib_per_second: percentile(&mut direct, 0.5),
        forwarded_mib_per_second: percentile(&mut forwarded, 0.5),
        ratio: percentile(&mut ratios, 0.5),
    })
}

fn mib_per_second(seconds: f64) -> f64 {
    (BYTES >> 20) as f64 / seconds
}

/// The words of `main` that make this process a part of the measurement; `None` for a bench run.
pub fn as_child(arguments: &[String]) -> Option<Result> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["--serve-bytes", port] => Some(port.parse().map_err(Into::into).and_then(serve_bytes)),
        ["--download", address] => Some(download(address)),
        ["--execs", pod, kubeconfig] => Some(print(async { execs(&client(kubeconfig).await?, pod).await })),
        ["--forwarded-download", pod, kubeconfig] => {
            Some(print(async { Ok(vec![forwarded_download(&client(kubeconfig).await?, pod).await?]) }))
        }
        _ => None,
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn print(seen: impl Future<Output = Result<Vec<f64>>>) -> Result {
    println!("{}", serde_json::to_string(&runtime()?.block_on(seen)?)?);
    Ok(())
}

async fn client(kubeconfig: &str) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(Path::new(kubeconfig))?;
    Ok(Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?)
}

/// Sends [`BYTES`] to whoever connects, until it is killed.
fn serve_bytes(port: u16) -> Result {
    let piece = vec![b'x'; PIECE];
    for stream in TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?.incoming() {
        let mut stream = stream?;
        let mut left = BYTES as usize;
        // Whether all arrived is the client's to say.
        while left > 0 && stream.write_all(&piece[..left.min(PIECE)]).is_ok() {
            left = left.saturating_sub(PIECE);
        }
    }
    Ok(())
}

/// Prints the seconds of one download.
fn download(address: &str) -> Result {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    let (mut piece, mut bytes) = (vec![0; PIECE], 0);
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            read => bytes += read as u64,
        }
    }
    all_came(bytes)?;
    println!("{}", start.elapsed().as_secs_f64());
    Ok(())
}

fn all_came(bytes: u64) -> Result {
    if bytes == BYTES { Ok(()) } else { Err(format!("{bytes} of {BYTES} bytes came").into()) }
}

/// Seconds of one download through port-forward, from the request on.
async fn forwarded_download(client: &Client, pod: &str) -> Result<f64> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let start = Instant::now();
    let mut forwarder = pods.portforward(pod, &[PORT]).await?;
    let mut stream = forwarder.take_stream(PORT).ok_or("no stream")?;
    let (mut piece, mut bytes) = (vec![0; PIECE], 0);
    while bytes < BYTES {
        match stream.read(&mut piece).await? {
            0 => break,
            read => bytes += read as u64,
        }
    }
    all_came(bytes)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Milliseconds from each request until the first byte that the command wrote.
async fn execs(client: &Client, pod: &str) -> Result<Vec<f64>> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let mut times = Vec::new();
    for _ in 0..EXECS {
        let start = Instant::now();
        let mut process = pods.exec(pod, ["echo", "x"], &AttachParams::default().stderr(false)).await?;
        let mut output = process.stdout().ok_or("no output")?;
        let outcome = process.take_status().ok_or("no outcome to wait for")?;
        output.read_exact(&mut [0]).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        outcome.await.ok_or("the command ended without an outcome")?;
    }
    Ok(times)
}

/// The same, where the engine is asked by its socket.
async fn engine_execs(url: &str, container: &str) -> Result<Vec<f64>> {
    let engine = bollard::Docker::connect_with_host(url)?.negotiate_version().await?;
    let mut times = Vec::new();
    for _ in 0..EXECS {
        let start = Instant::now();
        let command = Some(vec!["echo".to_owned(), "x".to_owned()]);
        let options = CreateExecOptions { attach_stdout: Some(true), cmd: command, ..Default::default() };
        let id = engine.create_exec(container, options).await?.id;
        let StartExecResults::Attached { mut output, .. } = engine.start_exec(&id, None).await? else {
            return Err("the engine does not attach".into());
        };
        match output.next().await {
            Some(Ok(LogOutput::StdOut { .. })) => times.push(start.elapsed().as_secs_f64() * 1e3),
            other => return Err(format!("no output: {other:?}").into()),
        }
        while output.next().await.is_some() {}
    }
    Ok(times)
}
