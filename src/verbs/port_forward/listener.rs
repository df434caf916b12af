//! The ports of this host, and who connects to them.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

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
pub fn accept(ports: Vec<LocalPort>) -> impl Stream<Item = (TcpStream, Forward)> + Unpin {
    futures::stream::select_all(ports.into_iter().map(|port| {
        let accepted = futures::stream::unfold(port, |port| async {
            let (client, _) = one(|| port.listener.accept()).await;
            say(format_args!("Handling connection for {}", port.forward.local));
            Some(((client, port.forward), port))
        });
        accepted.boxed()
    }))
}

/// The next that `accept` gives. That one cannot be accepted, as while too many files are open, is told and ends none
/// of those that are forwarded.
async fn one<T, A: Future<Output = io::Result<T>>>(accept: impl Fn() -> A) -> T {
    loop {
        match accept().await {
            Ok(client) => return client,
            Err(error) => eprintln!("cannot accept a connection, trying again: {error}"),
        }
        tokio::time::sleep(ACCEPT_AGAIN).await;
    }
}

/// As long as Go's servers wait at most before they accept again.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Prints a line. Who does not read it is not told.
fn say(line: std::fmt::Arguments<'_>) {
    writeln!(std::io::stdout(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_cannot_be_accepted_keeps_nobody_from_the_next() {
        let tries = Cell::new(0);
        let accept = || {
            tries.set(tries.get() + 1);
            std::future::ready(match tries.get() {
                1 => Err(io::Error::from_raw_os_error(24)),
                number => Ok(number),
            })
        };
        assert_eq!(one(accept).await, 2);
    }
}
