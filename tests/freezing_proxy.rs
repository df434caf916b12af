//! A TCP proxy that stops without a word, as a peer does that lost power, or a network that drops packets.
//!
//! The tests of several crates include this file.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Passes bytes on until it is frozen: then its connections stay open, and nothing is read or sent.
pub struct FreezingProxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Of the connections that come now.
    freeze: Mutex<CancellationToken>,
    accepted: AtomicUsize,
}

impl FreezingProxy {
    /// On a free port of this host.
    pub async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::<State>::default());
        let accepting = state.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let freeze = accepting.freeze.lock().clone();
                accepting.accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(pass_on(client, target, freeze));
            }
        });
        Self { address, state }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections came.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// Connections that there are, and that come, stop for ever.
    pub fn freeze(&self) {
        self.state.freeze.lock().cancel();
    }

    /// Those that come from now on are served.
    pub fn serve_new_connections(&self) {
        *self.state.freeze.lock() = CancellationToken::new();
    }
}

async fn pass_on(mut client: TcpStream, target: SocketAddr, freeze: CancellationToken) {
    let mut server = TcpStream::connect(target).await.unwrap();
    tokio::select! {
        biased;
        () = freeze.cancelled() => std::future::pending().await,
        // Either end may go as it likes.
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
    }
}
