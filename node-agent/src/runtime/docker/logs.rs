//! Output of containers and of commands run in them.

use bollard::{
    container::LogOutput,
    errors::Error,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
    query_parameters::LogsOptions,
};
use futures::{Stream, StreamExt, TryStreamExt};

use crate::runtime::{ExecResult, LogChunk, LogOptions};

pub(super) fn logs(
    client: &bollard::Docker,
    id: &str,
    options: &LogOptions,
) -> impl Stream<Item = Result<LogChunk, Error>> + Send + use<> {
    let query = LogsOptions {
        follow: options.follow,
        stdout: true,
        stderr: true,
        since: options.since.map_or(0, |since| i32::try_from(since.as_second()).unwrap_or(i32::MAX)),
        timestamps: options.timestamps,
        tail: options.tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string()),
        ..Default::default()
    };
    client.logs(id, Some(query)).map_ok(|output| match output {
        LogOutput::StdErr { message } => LogChunk::Stderr(message),
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            LogChunk::Stdout(message)
        }
    })
}

pub(super) async fn exec(
    client: &bollard::Docker,
    id: &str,
    command: &[String],
    limit: usize,
) -> Result<ExecResult, Error> {
    let config = ExecConfig {
        cmd: Some(command.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..Default::default()
    };
    let exec = client.create_exec(id, config).await?.id;
    let mut collected = Vec::new();
    if let StartExecResults::Attached { mut output, .. } = client.start_exec(&exec, None::<StartExecOptions>).await? {
        while let Some(chunk) = output.next().await {
            let chunk = chunk?.into_bytes();
            let room = limit.saturating_sub(collected.len());
            collected.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    }
    let exit_code = client.inspect_exec(&exec).await?.exit_code.unwrap_or(-1);
    Ok(ExecResult { exit_code, output: collected })
}
