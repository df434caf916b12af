//! This side's terminal: its size, and its raw mode, in which every key goes to the other side.

use std::io::{self, IsTerminal};

use futures::Stream;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use terminal_size::{Height, Width, terminal_size};
use tokio::signal::unix::{SignalKind, signal};

/// Of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// The terminal in raw mode, until it is dropped.
pub struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Whether standard input is a terminal.
    pub fn is_one() -> bool {
        io::stdin().is_terminal()
    }

    /// Puts it into raw mode.
    pub fn raw() -> nix::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self { before })
    }

    /// Its size, and each that it takes.
    pub fn sizes() -> io::Result<impl Stream<Item = Size>> {
        let changes = signal(SignalKind::window_change())?;
        Ok(futures::stream::unfold((changes, true), |(mut changes, is_first)| async move {
            if !is_first {
                changes.recv().await?;
            }
            // None where it was closed.
            let (Width(width), Height(height)) = terminal_size()?;
            Some((Size { width, height }, (changes, false)))
        }))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before) {
            tracing::warn!(%error, "the terminal stays in raw mode: `reset` helps");
        }
    }
}
