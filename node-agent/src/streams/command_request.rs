//! What a request for exec or attach asks for, read from its query: the kubelet's parameters.

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};

use crate::runtime::StreamOptions;

/// A command and its streams; attach has no command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandRequest {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What is wanted of its streams.
    pub streams: StreamOptions,
}

/// It asks for no stream at all. Worded as the kubelet's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("you must specify at least 1 of stdin, stdout, stderr")]
pub struct NoStreams;

impl CommandRequest {
    /// Reads the query of the request. A terminal has no standard error of its own.
    pub fn of(query: &str) -> Result<Self, NoStreams> {
        let mut request = Self::default();
        let streams = &mut request.streams;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let is_set = value == "1";
            match &*name {
                "command" => request.command.push(value.into_owned()),
                "input" => streams.stdin = is_set,
                "output" => streams.stdout = is_set,
                "error" => streams.stderr = is_set,
                "tty" => streams.tty = is_set,
                _ => {}
            }
        }
        streams.stderr &= !streams.tty;
        if streams.stdin || streams.stdout || streams.stderr { Ok(request) } else { Err(NoStreams) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for CommandRequest {
    type Rejection = NoStreams;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoStreams> {
        Self::of(parts.uri.query().unwrap_or_default())
    }
}

impl IntoResponse for NoStreams {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, self.to_string()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_and_its_streams_are_read() {
        let read = CommandRequest::of("command=sh&command=-c&command=echo+%22a%22&input=1&output=1&tty=1&error=1");
        let streams = StreamOptions { stdin: true, stdout: true, stderr: false, tty: true };
        let command = ["sh", "-c", "echo \"a\""].map(str::to_owned).to_vec();
        assert_eq!(read, Ok(CommandRequest { command, streams }));
    }

    #[test]
    fn a_command_without_streams_is_refused() {
        for query in ["", "command=ls", "command=ls&output=0", "tty=1&error=1"] {
            assert_eq!(CommandRequest::of(query), Err(NoStreams), "{query}");
        }
        assert_eq!(NoStreams.to_string(), "you must specify at least 1 of stdin, stdout, stderr");
    }
}
