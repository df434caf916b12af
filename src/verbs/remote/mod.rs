//! What the verbs share that reach into pods: which pod and container is meant, this terminal, and the channels of a
//! remote command.

mod channels;
mod pod;
mod terminal;

pub use channels::{Channels, PROTOCOL, run};
pub use pod::{PodTarget, find};
pub use terminal::Terminal;

use crate::{
    cluster::{Cluster, with_query},
    failure::ErrorWithHint,
};

/// A process in a container, and which of this program's streams it is joined to.
#[derive(Debug, clap::Args)]
pub struct ProcessArgs {
    /// POD, or TYPE/NAME of something that has pods (deployment/web)
    #[arg(value_name = "POD")]
    pod: String,
    /// Container of the pod
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass standard input to the process
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// The process has a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Print nothing but what the process does
    #[arg(short, long)]
    pub quiet: bool,
}

impl ProcessArgs {
    /// The pod that is meant, unless it has ended: then nobody can `verb` it.
    pub async fn find(&self, cluster: &Cluster, verb: &str) -> anyhow::Result<PodTarget> {
        let (pod, _) = find(cluster, &self.pod, self.container.as_deref(), self.quiet).await?;
        pod.check_is_not_completed(verb)?;
        Ok(pod)
    }
}

/// Which of this program's streams a remote command is joined to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard input goes to it.
    pub stdin: bool,
    /// They are a terminal.
    pub tty: bool,
}

impl Streams {
    /// As they can be here: a terminal needs input, and a terminal on this side.
    pub fn possible(mut self) -> Self {
        if self.tty && self.stdin && !Terminal::is_one() {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
            self.tty = false;
        }
        self.tty &= self.stdin;
        self
    }

    /// The path of a subresource of the pod, with these streams and more options.
    pub fn path(self, pod: &PodTarget, subresource: &str, more: &[(&str, &str)]) -> String {
        let mut query = vec![("container", pod.container.as_str()), ("stdout", "true")];
        query.extend(self.stdin.then_some(("stdin", "true")));
        query.push(if self.tty { ("tty", "true") } else { ("stderr", "true") });
        query.extend(more);
        with_query(&format!("{}/{subresource}", pod.path), &query)
    }
}

/// Has a write to a connection that the other side has closed fail, and not end the process, as with other verbs. What
/// is printed to a closed pipe fails, too.
pub fn ignore_broken_pipes() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler is installed; an ignored signal runs no code of this process.
    if let Err(error) = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) } {
        tracing::debug!(%error, "SIGPIPE is not ignored");
    }
}

/// A command must be named.
pub fn no_command(usage: &str) -> anyhow::Error {
    ErrorWithHint::new("you must specify at least one command for the container", format!("for instance: {usage}"))
        .into()
}
