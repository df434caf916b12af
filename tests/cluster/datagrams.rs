//! UDP sockets that connect to a Service which nobody serves yet.

use std::{
    fs::File,
    io,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};

use crate::kit::{
    Result,
    cluster::{Cluster, Node, PATIENCE},
    images, wait,
};

const PORT: u16 = 5300;

/// Connecting succeeds, what is sent is refused at once; as soon as a pod serves, a new socket reaches it.
pub fn refused_until_somebody_serves(cluster: &Cluster) -> Result {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: late}}\n\
         spec: {{selector: {{app: late}}, ports: [{{port: {PORT}, protocol: UDP}}]}}\n"
    ))?;
    let service = cluster.get(&["service", "late"])?;
    let address = service["spec"]["clusterIP"].as_str().ok_or("no clusterIP")?.to_owned();
    wait::until("a datagram to be refused", PATIENCE, || {
        let answer = ask(cluster, "client-1", &address)?;
        if answer.contains("Connection refused") { Ok(()) } else { Err(answer.into()) }
    })?;
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: late, labels: {{app: late}}}}\n\
         spec:\n  nodeName: node-2\n  terminationGracePeriodSeconds: 0\n\
         \x20 containers: [{{name: c, image: \"{}\", command: [sleep, \"1000000\"]}}]\n",
        images::WEB
    ))?;
    cluster.wait_for_condition("pod/late", "Ready")?;
    let (_, process) = process_of(cluster, "late")?;
    let _server = Echo::start(process)?;
    wait::until("a datagram to be answered", PATIENCE, || {
        let answer = ask(cluster, "client-1", &address)?;
        if answer.trim() == "hello" { Ok(()) } else { Err(answer.into()) }
    })?;
    crate::kit::run(&mut cluster.fairlead(&["delete", "pod/late", "service/late"])).map(drop)
}

/// What a UDP socket of the pod is told that connects to the Service and sends a line; an error where it is told
/// nothing within five seconds.
fn ask(cluster: &Cluster, pod: &str, address: &str) -> Result<String> {
    let (node, process) = process_of(cluster, pod)?;
    let line = format!("exec 3<>/dev/udp/{address}/{PORT}; echo hello >&3; head -n 1 <&3");
    let mut command = node.host.command("timeout");
    command.args(["5", "nsenter", "-t", &process.to_string(), "-n", "bash", "-c", &line]);
    let output = command.output()?;
    const TIMED_OUT: i32 = 124;
    if output.status.code() == Some(TIMED_OUT) {
        return Err("no answer".into());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(text(&output.stdout) + &text(&output.stderr))
}

/// The first process of the pod's container, and the node that it runs on.
fn process_of<'a>(cluster: &'a Cluster, pod: &str) -> Result<(&'a Node, u32)> {
    let object = cluster.get(&["pod", pod])?;
    let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
    let node = cluster.nodes.iter().find(|n| n.name == node).ok_or_else(|| format!("pod {pod} is on no node"))?;
    let id = object["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
    let id = id.trim_start_matches("docker://");
    let process = node.docker.cli(&["inspect", "--format", "{{.State.Pid}}", id])?;
    Ok((node, process.trim().parse()?))
}

/// Sends every datagram back, in the network namespace of a process; ends with the value.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(process: u32) -> Result<Self> {
        let namespace = File::open(format!("/proc/{process}/ns/net"))?;
        let bound = std::thread::spawn(move || -> io::Result<UdpSocket> {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            UdpSocket::bind(("0.0.0.0", PORT))
        });
        let socket = bound.join().map_err(|_| "the thread that binds panicked")??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                // A time-out is the moment to look whether to stop; a client that has gone needs no answer.
                if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&buffer[..length], client).ok();
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the echo server panicked");
        }
    }
}
