//! `fairlead attach`: the streams of a container's main process.

use anyhow::bail;

use super::{
    exec::join_streams,
    remote::{ProcessArgs, Streams},
};
use crate::cluster::{ConnectArgs, connect};

/// Join the streams of a process that runs in a container
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead attach web-1
  fairlead attach -it shell")]
pub struct Attach {
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Attach {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let ProcessArgs { stdin, tty, quiet, .. } = self.process;
        let pod = self.process.find(&cluster, "attach").await?;
        let Some(container) = pod.container_spec() else {
            bail!("container {} not found in pod {}", pod.container, pod.name());
        };
        let has_terminal = container["tty"] == true;
        if tty && !has_terminal && !quiet {
            eprintln!("Unable to use a TTY - container {} did not allocate one", pod.container);
        }
        let streams = Streams { stdin, tty: tty && has_terminal }.possible();
        if streams.tty && !quiet {
            eprintln!("If you don't see a command prompt, try pressing enter.");
        }
        join_streams(&cluster, &streams.path(&pod, "attach", &[]), streams).await
    }
}
