//! Commands in containers, and containers' main processes, with their standard streams.

use std::time::Duration;

use bollard::{
    models::ExecConfig,
    query_parameters::{ResizeContainerTTYOptionsBuilder, ResizeExecOptionsBuilder},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::{Docker, exec::Exec, hijack};
use crate::runtime::{Error, Process, ProcessControl, StreamOptions, TerminalSize};

/// Docker ends an attachment when it reads these keys; its own choice, ctrl-p and ctrl-q, is what shells and editors
/// use. There is no way to have none.
const DETACH_KEYS: &str = "ctrl-^,ctrl-_,ctrl-^,ctrl-]";
const START: &str = "start a command in the container";
const ATTACH: &str = "attach to the container";
const RESIZE: &str = "resize a terminal of the container";
/// How long the Engine may take to say how a command ended whose output has ended.
const EXIT_CODE_WITHIN: Duration = Duration::from_secs(10);
const EXIT_CODE_RETRY: Duration = Duration::from_millis(20);

/// Starts `command` in `container`.
pub(super) async fn start(
    docker: &Docker,
    container: &str,
    command: &[String],
    streams: StreamOptions,
) -> Result<Process, Error> {
    let config = ExecConfig {
        cmd: Some(command.to_vec()),
        attach_stdin: Some(streams.stdin),
        attach_stdout: Some(streams.stdout),
        attach_stderr: Some(streams.stderr && !streams.tty),
        tty: Some(streams.tty),
        detach_keys: Some(DETACH_KEYS.to_owned()),
        ..Default::default()
    };
    let id = docker.client.create_exec(container, config).await.map_err(docker.error(START))?.id;
    let path = format!("/exec/{id}/start");
    let mut exec = Exec::new(docker.client.clone(), id, container);
    let connection = hijack::open(START, &docker.host, &path, json!({"Detach": false, "Tty": streams.tty})).await;
    match connection {
        Ok(connection) => {
            Ok(process(START, connection, streams, Box::new(ExecControl { exec, docker: docker.clone() })))
        }
        Err(error) => {
            if was_not_started(&error) {
                exec.mark_ended();
            }
            // Else it may run: it is killed with `exec`.
            Err(error)
        }
    }
}

/// Whether a command cannot have been started: the Engine was not reached, or refused.
fn was_not_started(error: &Error) -> bool {
    matches!(error, Error::Unreachable { .. } | Error::NotFound { .. } | Error::Refused { .. })
}

/// Connects to the main process of `container`.
pub(super) async fn attach(docker: &Docker, container: &str, streams: StreamOptions) -> Result<Process, Error> {
    let (stdin, stdout, stderr) = (streams.stdin, streams.stdout, streams.stderr);
    let path = format!(
        "/containers/{container}/attach?stream=1&stdin={stdin}&stdout={stdout}&stderr={stderr}&detachKeys={}",
        DETACH_KEYS.replace('^', "%5E").replace(']', "%5D")
    );
    let connection = hijack::open(ATTACH, &docker.host, &path, Value::Null).await?;
    let control = AttachedControl { docker: docker.clone(), container: container.to_owned() };
    Ok(process(ATTACH, connection, streams, Box::new(control)))
}

fn process(
    operation: &'static str,
    connection: TokioIo<Upgraded>,
    streams: StreamOptions,
    control: Box<dyn ProcessControl>,
) -> Process {
    let (from, to) = tokio::io::split(connection);
    Process { input: Box::pin(to), output: hijack::output(operation, from, streams.tty), control }
}

struct ExecControl {
    exec: Exec,
    docker: Docker,
}

#[async_trait::async_trait]
impl ProcessControl for ExecControl {
    async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        let options = ResizeExecOptionsBuilder::default().h(size.height.into()).w(size.width.into()).build();
        self.docker.client.resize_exec(self.exec.id(), options).await.map_err(self.docker.error(RESIZE))
    }

    async fn exit_code(&mut self) -> Result<Option<i64>, Error> {
        let asking = async {
            loop {
                let state = self.exec.state().await.map_err(self.docker.error("ask how a command ended"))?;
                if let (Some(code), false) = (state.exit_code, state.running == Some(true)) {
                    return Ok(code);
                }
                tokio::time::sleep(EXIT_CODE_RETRY).await;
            }
        };
        let timed_out = Err(Error::TimedOut { operation: "ask how a command ended", after: EXIT_CODE_WITHIN });
        let code = tokio::time::timeout(EXIT_CODE_WITHIN, asking).await.unwrap_or(timed_out)?;
        self.exec.mark_ended();
        Ok(Some(code))
    }

    async fn end(&mut self) {
        self.exec.end().await;
    }
}

struct AttachedControl {
    docker: Docker,
    container: String,
}

#[async_trait::async_trait]
impl ProcessControl for AttachedControl {
    async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        let options = ResizeContainerTTYOptionsBuilder::default().h(size.height.into()).w(size.width.into()).build();
        self.docker.client.resize_container_tty(&self.container, options).await.map_err(self.docker.error(RESIZE))
    }

    async fn exit_code(&mut self) -> Result<Option<i64>, Error> {
        Ok(None)
    }

    async fn end(&mut self) {}
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Why a connection failed to an Engine that reads the request and answers with `answer`, and then is gone.
    async fn failure(answer: &'static str) -> Error {
        let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("tcp://{}", engine.local_addr().unwrap());
        let answering = tokio::spawn(async move {
            let (mut connection, _) = engine.accept().await.unwrap();
            connection.read_u8().await.unwrap();
            connection.write_all(answer.as_bytes()).await.unwrap();
            connection.shutdown().await.unwrap();
            tokio::io::copy(&mut connection, &mut tokio::io::sink()).await.ok();
        });
        let error = hijack::open(START, &host, "/exec/1/start", Value::Null).await.err().unwrap();
        answering.await.unwrap();
        error
    }

    #[tokio::test]
    async fn only_what_the_engine_refused_or_never_heard_of_is_known_not_to_run() {
        let lost = failure("").await;
        assert!(!was_not_started(&lost), "{lost:?}");
        let broken = failure("HTTP/1.1 101 UPGR").await;
        assert!(!was_not_started(&broken), "{broken:?}");
        let refused = failure("HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n{}").await;
        assert!(was_not_started(&refused), "{refused:?}");
        let unreachable = hijack::open(START, "unix:///nonexistent", "/", Value::Null).await.err().unwrap();
        assert!(was_not_started(&unreachable), "{unreachable:?}");
    }
}
