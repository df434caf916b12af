//! DNS over UDP: one thread per core, each with a socket of its own on the same port, answering what needs no waiting.
//!
//! What does need it goes to tokio through a bounded queue; a full queue is answered by SERVFAIL at once.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::sys::socket::{Shutdown, shutdown};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    response::Transport,
    server::{FastPathOutcome, Server},
    udp_batch::UdpBatch,
};
use fairlead_serving::{
    client_limit::{ClientLimit, ClientSlot},
    supervise::{TaskHealth, keep_serving},
};

/// A query that other servers must be asked for.
pub struct Job {
    packet: Box<[u8]>,
    client: SocketAddr,
    socket: Arc<UdpSocket>,
    _slot: ClientSlot,
}

/// Queries that may wait to be taken up by tokio, and be worked on there at one time.
pub const MAX_WAITING: usize = 4096;
/// Of those, of one client.
const MAX_WAITING_OF_ONE: usize = 400;

/// The threads that serve UDP.
pub struct UdpThreads {
    stop: Arc<AtomicBool>,
    threads: Vec<(Arc<UdpSocket>, JoinHandle<()>)>,
}

impl UdpThreads {
    /// Binds a socket per core and serves each on a thread of its own.
    pub fn start(
        address: SocketAddrV4,
        server: &Arc<Server>,
        jobs: &mpsc::Sender<Job>,
        health: &TaskHealth,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let sockets: Vec<_> = (0..cores).map(|_| bind(address)).collect::<io::Result<_>>()?;
        let mut threads = Self { stop, threads: Vec::new() };
        let limit = ClientLimit::new(MAX_WAITING_OF_ONE);
        for socket in sockets {
            let (socket, server, jobs) = (Arc::new(socket), server.clone(), jobs.clone());
            let (at_work, stop) = (socket.clone(), threads.stop.clone());
            let (health, limit) = (health.clone(), limit.clone());
            let thread = std::thread::Builder::new().name("dns".into()).spawn(move || {
                let fresh = || Ok::<_, std::convert::Infallible>(());
                keep_serving(&health, (), fresh, |()| serve(&at_work, &server, &jobs, &limit, &stop));
            })?;
            threads.threads.push((socket, thread));
        }
        Ok(threads)
    }

    /// Wakes all threads and waits for their end.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for (socket, thread) in self.threads {
            // "Not connected" is what Linux answers here after it has woken the receiver.
            if let Err(error) = shutdown(std::os::fd::AsRawFd::as_raw_fd(&*socket), Shutdown::Both)
                && error != nix::errno::Errno::ENOTCONN
            {
                tracing::warn!(%error, "cannot wake a DNS thread");
            }
            if thread.join().is_err() {
                tracing::error!("a DNS thread panicked");
            }
        }
    }
}

fn bind(address: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    // Bursts wait here while the thread works on a batch.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn serve(socket: &Arc<UdpSocket>, server: &Server, jobs: &mpsc::Sender<Job>, limit: &ClientLimit, stop: &AtomicBool) {
    let mut batch = UdpBatch::new();
    let mut turn = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        let received = match batch.receive(socket) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::debug!(%error, "cannot receive queries");
                std::thread::sleep(RECEIVE_AGAIN_AFTER);
                continue;
            }
        };
        for index in 0..received {
            turn = turn.wrapping_add(1);
            batch.answer(index, |packet, client, out| match server.answer_fast(packet, Transport::Udp, turn, out) {
                FastPathOutcome::Done => (),
                FastPathOutcome::Drop => out.clear(),
                FastPathOutcome::Wait => {
                    out.clear();
                    let job = limit.take(client.ip()).map(|slot| {
                        let job = Job { packet: packet.into(), client, socket: socket.clone(), _slot: slot };
                        jobs.try_send(job)
                    });
                    if !matches!(job, Some(Ok(()))) {
                        server.overloaded(packet, out);
                    }
                }
            });
        }
        if let Err(error) = batch.send(socket, received) {
            tracing::trace!(%error, "cannot send answers");
        }
    }
}

/// Takes up what the threads hand over, each query in a task of its own.
pub async fn serve_jobs(server: Arc<Server>, jobs: Arc<Mutex<mpsc::Receiver<Job>>>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_WAITING));
    // Held by this task alone, until it ends.
    let mut jobs = jobs.lock().await;
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, jobs.recv().await)
        };
        let (permit, job) = tokio::select! {
            () = stop.cancelled() => return,
            next = next => next,
        };
        let Some(job) = job else { return };
        let (server, stop) = (server.clone(), stop.clone());
        tokio::spawn(async move {
            let mut out = Vec::new();
            tokio::select! {
                () = stop.cancelled() => return,
                () = server.resolve(&job.packet, job.client.ip(), Transport::Udp, &mut out) => (),
            }
            if !out.is_empty()
                && let Err(error) = job.socket.send_to(&out, job.client)
            {
                tracing::trace!(%error, client = %job.client, "cannot send an answer");
            }
            drop(permit);
        });
    }
}

/// After an error, lest one that stays takes a core.
const RECEIVE_AGAIN_AFTER: Duration = Duration::from_millis(20);
const MAX_THREADS: usize = 16;
const RECEIVE_BUFFER: usize = 1 << 20;
