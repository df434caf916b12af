//! `fairlead exec`: a command in a container.

use super::remote::{self, Channels, ProcessArgs, Streams, Terminal};
use crate::cluster::{Cluster, ConnectArgs, connect};

/// Run a command in a container
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead exec web-1 -- ls /
  fairlead exec -it deployment/web -- sh
  fairlead exec -i web-1 -c sidecar -- tar x < files.tar

The exit code is the command's.")]
pub struct Exec {
    #[command(flatten)]
    process: ProcessArgs,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Exec {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        if self.command.is_empty() {
            return Err(remote::no_command("fairlead exec web-1 -- ls"));
        }
        let cluster = connect(&self.connect).await?;
        let ProcessArgs { stdin, tty, .. } = self.process;
        let pod = self.process.find(&cluster, "exec into").await?;
        let streams = Streams { stdin, tty }.possible();
        let command: Vec<(&str, &str)> = self.command.iter().map(|word| ("command", word.as_str())).collect();
        join_streams(&cluster, &streams.path(&pod, "exec", &command), streams).await
    }
}

/// Joins this program's own streams to a remote command, until that ends.
pub async fn join_streams(cluster: &Cluster, path: &str, streams: Streams) -> anyhow::Result<()> {
    remote::ignore_broken_pipes();
    let socket = cluster.open_socket(path, remote::PROTOCOL).await?;
    let (raw, sizes) = match streams.tty {
        true => (Some(Terminal::raw()?), Some(Terminal::sizes()?)),
        false => (None, None),
    };
    let channels = Channels {
        stdin: streams.stdin.then(|| Box::pin(tokio::io::stdin()) as _),
        stdout: Box::pin(tokio::io::stdout()),
        stderr: Box::pin(tokio::io::stderr()),
        sizes: sizes.map(|sizes| Box::pin(sizes) as _),
    };
    let ended = remote::run(socket, channels).await;
    // Before the exit code's line is printed.
    drop(raw);
    ended
}
