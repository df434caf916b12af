//! Output of containers.

use bollard::{container::LogOutput, errors::Error, query_parameters::LogsOptions};
use futures::{Stream, TryStreamExt};

use crate::runtime::{LogChunk, LogOptions};

/// The output of a container as `options` ask.
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
