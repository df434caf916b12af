//! When a role is to end: SIGINT (Ctrl-C) and SIGTERM mean the same.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from its creation on, so that a signal during the start is not lost.
pub struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
}

impl Shutdown {
    pub fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Gives the name of the signal that came.
    pub async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
