//! The ports of this host, and who connects to them.

use std::{io::Write, net::SocketAddr};

use anyhow::Context;
use futures::{Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};

use crate::failure::ErrorWithHint;

/// One port of this host, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// 0 for a free one.
    pub local: u16,
    /// The pod's.
    pub remote: u16,
}

/// A socket that listens.
pub struct LocalPort {
    pub listener: TcpListener,
    /// Where it leads, from the port that it has.
    pub forward: Forward,
}

/// Listens on `addresses`. All have the same port; one of them suffices.
pub async fn listen(addresses: &[String], forward: Forward) -> anyhow::Result<Vec<LocalPort>> {
    let (mut ports, mut local, mut failure) = (Vec::<LocalPort>::new(), forward.local, None);
    let addresses = addresses.iter().flat_map(|address| match address.as_str() {
        "localhost" => vec!["127.0.0.1", "::1"],
        other => vec![other],
    });
    for address in addresses {
        let ip = address
            .parse()
            .map_err(|_| ErrorWithHint::new(format!("{address:?} is no address"), "use an IP address, or localhost"))?;
        match TcpListener::bind(SocketAddr::new(ip, local)).await {
            Ok(listener) => {
                let bound = listener.local_addr()?;
                local = bound.port();
                say(format_args!("Forwarding from {bound} -> {}", forward.remote));
                ports.push(LocalPort { listener, forward: Forward { local, ..forward } });
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if ports.is_empty() => Err(error).with_context(|| format!("unable to listen on port {local}")),
        _ => Ok(ports),
    }
}

/// Who connects, and by which port. Ends where there are no ports.
pub fn accept(ports: Vec<LocalPort>) -> impl Stream<Item = anyhow::Result<(TcpStream, Forward)>> + Unpin {
    futures::stream::select_all(ports.into_iter().map(|port| {
        let accepted = futures::stream::unfold(port, |port| async {
            let accepted = port.listener.accept().await.context("cannot accept connections");
            if accepted.is_ok() {
                say(format_args!("Handling connection for {}", port.forward.local));
            }
            Some((accepted.map(|(client, _)| (client, port.forward)), port))
        });
        accepted.boxed()
    }))
}

/// Prints a line. Who does not read it is not told.
fn say(line: std::fmt::Arguments<'_>) {
    writeln!(std::io::stdout(), "{line}").ok();
}
