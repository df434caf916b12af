//! Accepts connections, and has each of them served until the listener is stopped.
//!
//! Decides how many connections there may be at a time; knows nothing of TLS, HTTP and the API.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::connection::Connections;
use crate::supervise::Supervisor;

/// Connections that the kernel keeps until they are accepted: what it allows by default. More come again a second
/// later.
const BACKLOG: u32 = 4096;

/// Listens on an address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves the gate over TLS until it is drained.
pub struct Listener {
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Listener {
    /// Starts to accept, as a task of `supervisor`. The gate behind `connections` ends its watches when they are
    /// told to close, which [`Listener::drain`] does.
    pub fn start(supervisor: &Supervisor, socket: TcpListener, connections: Connections) -> Self {
        let (tasks, closing) = (TaskTracker::new(), connections.closing.clone());
        let (connections, tracked) = (Arc::new(connections), tasks.clone());
        let most = most_connections(connections.places.limits().total());
        accept_supervised(supervisor, socket, most, move |stream, peer, permit| {
            let arrival = connections.places.arrive(peer.ip());
            tracked.spawn(connections.clone().serve(stream, peer, arrival, permit));
        });
        Self { closing, tasks }
    }

    /// Ends watches, waits for requests in progress, and closes connections that take too long. New connections are
    /// accepted until the supervisor shuts down, which is to come before.
    pub async fn drain(self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// All places, and some for strangers that were cut and have not gone yet and for nodes that find a place beyond their
/// share. Beyond them new connections wait in the kernel's queue.
fn most_connections(places: usize) -> usize {
    places.saturating_add(places / 16)
}

/// Gives every connection to `take`, with what it gives back when it ends. Connections that are there are not touched
/// when the task has to be started again.
fn accept_supervised(
    supervisor: &Supervisor,
    socket: TcpListener,
    most: usize,
    take: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit) + Send + Sync + 'static,
) {
    let (socket, permits, take) = (Arc::new(socket), Arc::new(Semaphore::new(most)), Arc::new(take));
    supervisor.spawn("listener", move |stop| {
        let (socket, permits, take) = (socket.clone(), permits.clone(), take.clone());
        async move { accept(&socket, &permits, &*take, &stop).await }.boxed()
    });
}

async fn accept(
    socket: &TcpListener,
    permits: &Arc<Semaphore>,
    take: &(impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit) + Sync),
    stop: &CancellationToken,
) {
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await.expect("nobody closes the semaphore");
            (permit, socket.accept().await)
        };
        let Some((permit, accepted)) = stop.run_until_cancelled(next).await else { return };
        match accepted {
            Ok((stream, peer)) => take(stream, peer, permit),
            // What went wrong with the one connection is over; a lack of descriptors passes when others end.
            Err(e) if is_of_one_connection(&e) => {}
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests;
