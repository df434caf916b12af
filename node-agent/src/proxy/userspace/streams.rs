//! TCP: each accepted connection is spliced to one of its own to a backend.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{balancer::Picked, listeners::ScopedBalancers};
use crate::client_limit::ClientLimit;

/// A bound listener; the caller is in the namespace it belongs to.
pub fn bind(at: SocketAddrV4) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

const BACKLOG: i32 = 1024;
/// Between two backends tried for one connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Backends tried for one connection before it is reset.
const ATTEMPTS: usize = 3;

/// Accepts until `stop`; connections that are open go on.
pub async fn serve(
    listener: std::net::TcpListener,
    balancers: watch::Receiver<ScopedBalancers>,
    limit: ClientLimit,
    stop: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "a listener is lost"),
    };
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return refuse(&listener),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(slot) = limit.take(client_address(peer).into()) else {
                    reset(&stream);
                    continue;
                };
                let balancers = balancers.borrow().clone();
                tokio::spawn(async move {
                    connection(stream, peer, balancers).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: give connections time to end.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Has the kernel refuse from now on, whoever else holds the socket: a program that was just forked has a copy of every
/// descriptor until it is executed, and so long a mere close changes nothing.
fn refuse(listener: &TcpListener) {
    if let Err(error) = SockRef::from(listener).shutdown(Shutdown::Both) {
        debug!(%error, "a listener is closed and not shut down");
    }
}

async fn connection(mut client: TcpStream, peer: SocketAddr, balancers: ScopedBalancers) {
    let Some((mut backend, picked)) = connect(peer, &balancers).await else { return reset(&client) };
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut backend) => if let Err(error) = copied {
            debug!(%error, backend = %picked.at, "a connection ended early");
            reset(&client);
            reset(&backend);
        },
        () = picked.gone.cancelled() => {
            reset(&client);
            reset(&backend);
        }
    }
}

async fn connect(peer: SocketAddr, balancers: &ScopedBalancers) -> Option<(TcpStream, Picked)> {
    let client = client_address(peer);
    let balancer = balancers.balancer(client)?;
    let mut tried = Vec::new();
    while tried.len() < ATTEMPTS {
        let picked = balancer.pick(client, &tried, Instant::now())?;
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(picked.at)).await {
            Ok(Ok(stream)) => {
                // Latency counts more than the number of packets: how to batch was the sender's decision.
                stream.set_nodelay(true).ok();
                return Some((stream, picked));
            }
            Ok(Err(error)) => debug!(%error, backend = %picked.at, "a backend does not answer"),
            Err(_) => debug!(backend = %picked.at, "a backend does not answer in time"),
        }
        tried.push(picked.at);
    }
    None
}

/// Has the connection end with a reset when it is dropped.
fn reset(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        debug!(%error, "a connection is closed and not reset");
    }
}

/// The IPv4 address of a client, from a mapped address too.
pub(super) fn client_address(peer: SocketAddr) -> Ipv4Addr {
    match peer.ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => address.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_stopped_refuses_though_a_forked_program_still_has_its_descriptor() {
        let listener = bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let _inherited = listener.try_clone().unwrap();
        let (_balancers, watched) = watch::channel(ScopedBalancers::new(Default::default()));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, watched, ClientLimit::new(1), stop.clone()));
        TcpStream::connect(at).await.unwrap();
        stop.cancel();
        serving.await.unwrap();
        let answer = TcpStream::connect(at).await.map_err(|error| error.kind());
        assert_eq!(answer.err(), Some(io::ErrorKind::ConnectionRefused));
    }
}
