//! `fairlead attach`: the streams of a container's main process.

use anyhow::bail;

use super::{
    exec::join_streams,
    remote::{self, Streams},
};
use crate::cluster::{ConnectArgs, connect};

/// Join the streams of a process that runs in a container
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead attach web-1
  fairlead attach -it shell")]
pub struct Attach {
    /// POD, or TYPE/NAME of something that has pods (deployment/web)
    #[arg(value_name = "POD")]
    pod: String,
    /// Container of the pod
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass standard input to the process
    #[arg(short = 'i', long)]
    stdin: bool,
    /// The process has a terminal
    #[arg(short, long)]
    tty: bool,
    /// Print nothing but what the process does
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Attach {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let (pod, _) = remote::find(&cluster, &self.pod, self.container.as_deref(), self.quiet).await?;
        pod.check_is_not_completed("attach")?;
        let Some(container) = pod.container_spec() else {
            bail!("container {} not found in pod {}", pod.container, pod.name());
        };
        let has_terminal = container["tty"] == true;
        if self.tty && !has_terminal && !self.quiet {
            eprintln!("Unable to use a TTY - container {} did not allocate one", pod.container);
        }
        let streams = Streams { stdin: self.stdin, tty: self.tty && has_terminal }.possible();
        if streams.tty && !self.quiet {
            eprintln!("If you don't see a command prompt, try pressing enter.");
        }
        join_streams(&cluster, &streams.path(&pod, "attach", &[]), streams).await
    }
}
