//! Connections to ports of a pod from inside its network namespace.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::network::inside::open_inside;

/// How long a pod may take to accept.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no connection to a port. Worded as containerd's.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The pod has no network: it does not run.
    #[error("pod not found ({0:?})")]
    NotRunning(String),
    /// The namespace could not be entered.
    #[error("failed to enter the network namespace of the pod: {0}")]
    Enter(io::Error),
    /// Nobody listens, on neither address.
    #[error(
        "failed to connect to localhost:{port} inside the network namespace of the pod, IPv4: dial tcp4 \
         127.0.0.1:{port}: {v4} IPv6: dial tcp6 [::1]:{port}: {v6}"
    )]
    Refused { port: u16, v4: String, v6: String },
}

/// Connects to `localhost` inside `netns`, by IPv4 or else by IPv6.
pub async fn connect(netns: File, port: u16) -> Result<TcpStream, ConnectError> {
    let Sockets { v4, v6 } = sockets_in(netns).await.map_err(ConnectError::Enter)?;
    let v4 = match dial(Ok(v4), (Ipv4Addr::LOCALHOST, port).into()).await {
        Ok(connected) => return Ok(connected),
        Err(error) => error,
    };
    let v6 = match dial(v6, (Ipv6Addr::LOCALHOST, port).into()).await {
        Ok(connected) => return Ok(connected),
        Err(error) => error,
    };
    Err(ConnectError::Refused { port, v4: reason(&v4), v6: reason(&v6) })
}

/// Sockets of a namespace, which they belong to for life.
struct Sockets {
    v4: Socket,
    v6: io::Result<Socket>,
}

async fn sockets_in(netns: File) -> io::Result<Sockets> {
    let socket = |domain| Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None);
    open_inside(netns, move || Ok(Sockets { v4: socket(Domain::IPV4)?, v6: socket(Domain::IPV6) })).await
}

async fn dial(socket: io::Result<Socket>, address: SocketAddr) -> io::Result<TcpStream> {
    let connecting = TcpSocket::from_std_stream(socket?.into()).connect(address);
    let connected = tokio::time::timeout(CONNECT_WITHIN, connecting).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    connected.set_nodelay(true)?;
    Ok(connected)
}

/// As Go words it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::AddrNotAvailable => "connect: cannot assign requested address".to_owned(),
        _ => format!("connect: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::network::namespaces::{TestMachine, can_make_namespaces};

    #[test]
    fn a_server_that_listens_on_localhost_of_the_namespace_alone_is_reached() {
        if !can_make_namespaces() {
            return;
        }
        let machine = TestMachine::new();
        let listener = machine.inside(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            use std::io::Write;
            listener.accept().unwrap().0.write_all(b"inside").unwrap();
        });
        let netns = || File::open(machine.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut stream = connect(netns(), port).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "inside");
            let refused = connect(netns(), 1).await.unwrap_err().to_string();
            assert!(refused.contains("IPv4: dial tcp4 127.0.0.1:1: connect: connection refused"), "{refused}");
        });
        serving.join().unwrap();
    }
}
