//! Runs a command in a container. One that takes too long, or whose caller is gone, is killed: Docker itself has no
//! call for that.

use std::time::Duration;

use bollard::{
    errors::Error,
    exec::{StartExecOptions, StartExecResults},
    models::{ExecConfig, ExecInspectResponse},
};
use futures::StreamExt;

use super::process_tree;
use crate::runtime::ExecResult;

/// Runs `command` for at most `timeout`; `None` where that passed first.
pub(super) async fn run(
    client: &bollard::Docker,
    container: &str,
    command: &[String],
    timeout: Duration,
    limit: usize,
) -> Result<Option<ExecResult>, Error> {
    let config = ExecConfig {
        cmd: Some(command.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..Default::default()
    };
    let running = async {
        let id = client.create_exec(container, config).await?.id;
        let mut exec = Exec::new(client.clone(), id, container);
        let result = exec.output(limit).await?;
        exec.mark_ended();
        Ok(result)
    };
    // The timeout drops `running`, and with it the `Exec`, which kills what still runs.
    tokio::time::timeout(timeout, running).await.map_or(Ok(None), |result| result.map(Some))
}

/// A command in a container: killed when dropped before it has ended.
pub(super) struct Exec {
    client: bollard::Docker,
    id: String,
    container: String,
    has_ended: bool,
}

impl Exec {
    /// Of the exec `id` in `container`.
    pub(super) fn new(client: bollard::Docker, id: String, container: &str) -> Self {
        Self { client, id, container: container.to_owned(), has_ended: false }
    }

    /// The Engine's id of it.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether it runs, and how it ended.
    pub(super) async fn state(&self) -> Result<ExecInspectResponse, Error> {
        self.client.inspect_exec(&self.id).await
    }

    /// It was seen to end, or was not started: there is nothing to kill.
    pub(super) fn mark_ended(&mut self) {
        self.has_ended = true;
    }

    /// Kills it unless it has ended, and waits until it has.
    pub(super) async fn end(&mut self) {
        if !self.has_ended {
            kill_in_time(&self.client, &self.id, self.container.clone()).await;
            self.has_ended = true;
        }
    }

    async fn output(&self, limit: usize) -> Result<ExecResult, Error> {
        let mut collected = Vec::new();
        let started = self.client.start_exec(&self.id, None::<StartExecOptions>).await?;
        if let StartExecResults::Attached { mut output, .. } = started {
            while let Some(chunk) = output.next().await {
                let chunk = chunk?.into_bytes();
                let room = limit.saturating_sub(collected.len());
                collected.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
        }
        let exit_code = self.client.inspect_exec(&self.id).await?.exit_code.unwrap_or(-1);
        Ok(ExecResult { exit_code, output: collected })
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let (client, id, container) = (self.client.clone(), self.id.clone(), self.container.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { kill_in_time(&client, &id, container).await });
        }
    }
}

/// How long a command is looked for to kill it. The Engine may only be starting it when its caller gives up.
const KILL_LIMIT: Duration = Duration::from_secs(30);
const KILL_RETRY: Duration = Duration::from_millis(50);
/// How long the processes that a command has started are looked for at a time.
const SEARCH_LIMIT: Duration = Duration::from_secs(5);
const _: () = assert!(SEARCH_LIMIT.as_secs() < KILL_LIMIT.as_secs());

async fn kill_in_time(client: &bollard::Docker, id: &str, container: String) {
    if tokio::time::timeout(KILL_LIMIT, kill(client, id, container)).await.is_err() {
        tracing::warn!(exec = id, "a command in a container was not seen to end, and may still run");
    }
}

/// Kills the processes of exec `id` in `container`, until the Engine says that it has ended or is not known.
async fn kill(client: &bollard::Docker, id: &str, container: String) {
    loop {
        let state = match client.inspect_exec(id).await {
            Ok(state) => state,
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => return,
            Err(error) => {
                tracing::debug!(exec = id, %error, "a command to kill cannot be looked at; trying again");
                tokio::time::sleep(KILL_RETRY).await;
                continue;
            }
        };
        if state.running != Some(true) && state.exit_code.is_some() {
            return;
        }
        if let Some(pid) = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0) {
            let container = container.clone();
            let killed = tokio::task::spawn_blocking(move || process_tree::kill(pid, &container, SEARCH_LIMIT)).await;
            match killed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(exec = id, pid, %error, "a command that timed out was not killed"),
                Err(error) => tracing::error!(exec = id, %error, "the killing of a command ended abnormally"),
            }
        }
        tokio::time::sleep(KILL_RETRY).await;
    }
}
