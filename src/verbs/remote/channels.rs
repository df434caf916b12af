//! The channels of a remote command, from the client's side: `v5.channel.k8s.io`.

use std::{io, pin::Pin};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use futures::{
    SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message},
};

use super::terminal::Size;
use crate::{cluster::ApiError, failure::CommandEnded};

/// The protocol's name.
pub const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Of input that is sent at a time.
const READ: usize = 32 * 1024;

/// What a remote command is joined to on this side.
pub struct Channels<'a> {
    /// Its input, until that ends.
    pub stdin: Option<Pin<Box<dyn AsyncRead + Send + 'a>>>,
    /// Its output.
    pub stdout: Pin<Box<dyn AsyncWrite + Send + 'a>>,
    /// Its errors.
    pub stderr: Pin<Box<dyn AsyncWrite + Send + 'a>>,
    /// The sizes that its terminal takes.
    pub sizes: Option<Pin<Box<dyn Stream<Item = Size> + Send + 'a>>>,
}

/// Runs to the command's end. An exit code that is not 0 is an error: [`CommandEnded`].
pub async fn run<I>(socket: WebSocketStream<I>, channels: Channels<'_>) -> anyhow::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let Channels { stdin, stdout, stderr, sizes } = channels;
    let (to, from) = socket.split();
    tokio::select! {
        status = receive(from, stdout, stderr) => end(&status?),
        failed = send(to, stdin, sizes) => Err(failed),
    }
}

/// Writes what comes, until the status does.
async fn receive<I: AsyncRead + AsyncWrite + Unpin>(
    mut from: SplitStream<WebSocketStream<I>>,
    mut stdout: Pin<Box<dyn AsyncWrite + Send + '_>>,
    mut stderr: Pin<Box<dyn AsyncWrite + Send + '_>>,
) -> anyhow::Result<Value> {
    loop {
        let mut message = match from.next().await {
            Some(Ok(Message::Binary(message))) if !message.is_empty() => message,
            Some(Ok(_)) => continue,
            None | Some(Err(Error::ConnectionClosed)) => bail!("the connection ended before the command did"),
            Some(Err(error)) => return Err(error).context("the connection broke off"),
        };
        let channel = message.split_to(1)[0];
        let to = match channel {
            STDOUT => &mut stdout,
            STDERR => &mut stderr,
            STATUS if !message.is_empty() => return serde_json::from_slice(&message).context("the end cannot be read"),
            _ => continue,
        };
        to.write_all(&message).await.context("cannot write")?;
        to.flush().await.context("cannot write")?;
    }
}

fn end(status: &Value) -> anyhow::Result<()> {
    if status["status"] == "Success" {
        return Ok(());
    }
    let causes = status["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let code = causes.iter().find(|cause| cause["reason"] == "ExitCode").and_then(|cause| cause["message"].as_str());
    if let (Some(code), true) = (code.and_then(|code| code.parse().ok()), status["reason"] == "NonZeroExitCode") {
        return Err(CommandEnded { code }.into());
    }
    let mut status = status.clone();
    status["kind"] = "Status".into();
    Err(ApiError::from_body(500, status.to_string().as_bytes()).into())
}

/// Sends input and sizes. Only fails: where all is sent, it waits.
async fn send<I: AsyncRead + AsyncWrite + Unpin>(
    mut to: SplitSink<WebSocketStream<I>, Message>,
    stdin: Option<Pin<Box<dyn AsyncRead + Send + '_>>>,
    sizes: Option<Pin<Box<dyn Stream<Item = Size> + Send + '_>>>,
) -> anyhow::Error {
    let input = match stdin {
        Some(stdin) => chunks(stdin).left_stream(),
        None => futures::stream::empty().right_stream(),
    };
    let sizes = match sizes {
        Some(sizes) => sizes.left_stream(),
        None => futures::stream::empty().right_stream(),
    };
    let sizes = sizes.map(|size| {
        let size = json!({"Width": size.width, "Height": size.height}).to_string();
        Ok([&[RESIZE], size.as_bytes()].concat())
    });
    let mut messages = std::pin::pin!(futures::stream::select(input, sizes));
    while let Some(message) = messages.next().await {
        let sent = match message {
            Ok(message) => to.send(Message::binary(message)).await,
            Err(error) => return anyhow::Error::new(error).context("cannot read standard input"),
        };
        if sent.is_err() {
            // Why shows where it is read.
            break;
        }
    }
    std::future::pending().await
}

/// Input as messages, and the message that it has ended.
fn chunks<'a>(stdin: Pin<Box<dyn AsyncRead + Send + 'a>>) -> impl Stream<Item = io::Result<Vec<u8>>> + 'a {
    futures::stream::unfold(Some(stdin), |stdin| async {
        let mut stdin = stdin?;
        let mut buffer = BytesMut::with_capacity(READ);
        match stdin.read_buf(&mut buffer).await {
            Ok(0) => Some((Ok(vec![CLOSE, STDIN]), None)),
            Ok(_) => Some((Ok([&[STDIN], &Bytes::from(buffer)[..]].concat()), Some(stdin))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    async fn pair() -> (WebSocketStream<tokio::io::DuplexStream>, WebSocketStream<tokio::io::DuplexStream>) {
        let (client, server) = tokio::io::duplex(64 * 1024);
        (
            WebSocketStream::from_raw_socket(client, Role::Client, None).await,
            WebSocketStream::from_raw_socket(server, Role::Server, None).await,
        )
    }

    #[tokio::test]
    async fn input_goes_out_output_comes_in_and_the_exit_code_is_the_end() {
        let (client, mut server) = pair().await;
        let serving = async {
            let mut got = Vec::new();
            while let Some(Ok(message)) = server.next().await {
                got.push(message.into_data().to_vec());
                if got.last().is_some_and(|last| *last == [CLOSE, STDIN]) {
                    break;
                }
            }
            let status = json!({"status": "Failure", "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}});
            for message in
                [b"\x01out".to_vec(), b"\x02err".to_vec(), [&[STATUS], status.to_string().as_bytes()].concat()]
            {
                server.send(Message::binary(message)).await.unwrap();
            }
            got
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let channels = Channels {
            stdin: Some(Box::pin(&b"hello"[..])),
            stdout: Box::pin(&mut out),
            stderr: Box::pin(&mut err),
            sizes: Some(Box::pin(futures::stream::iter([Size { width: 80, height: 24 }]))),
        };
        let (ended, got) = tokio::join!(run(client, channels), serving);
        assert_eq!(ended.unwrap_err().downcast_ref::<CommandEnded>().unwrap().code, 7);
        assert_eq!((out.as_slice(), err.as_slice()), (&b"out"[..], &b"err"[..]));
        assert!(
            got.contains(&b"\0hello".to_vec()) && got.contains(&b"\x04{\"Width\":80,\"Height\":24}".to_vec()),
            "{got:?}"
        );
    }

    #[test]
    fn a_failure_is_the_servers() {
        end(&json!({"status": "Success"})).unwrap();
        let failure = json!({"status": "Failure", "reason": "InternalError", "message": "Internal error occurred: no"});
        let error = end(&failure).unwrap_err();
        assert_eq!(error.downcast_ref::<ApiError>().unwrap().message, "Internal error occurred: no");
    }

    #[tokio::test]
    async fn a_connection_that_ends_too_soon_is_an_error() {
        let (client, server) = pair().await;
        drop(server);
        let channels =
            Channels { stdin: None, stdout: Box::pin(Vec::new()), stderr: Box::pin(Vec::new()), sizes: None };
        run(client, channels).await.unwrap_err();
    }
}
