//! Requests after whose answer the connection carries the streams of a process.
//!
//! bollard guesses by its first byte whether a chunk of output is framed, and damages what a terminal writes when that
//! begins with a byte below 3. Here it is known: only what is no terminal is framed.

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf},
    net::{TcpStream, UnixStream},
};
use tokio_util::codec::{Decoder, FramedRead};

use crate::runtime::{BoxError, Error, LogChunk};

/// Of output that is read at a time.
const READ: usize = 32 * 1024;
/// Of the Engine's refusal, so much is read.
const ERROR_LIMIT: usize = 64 * 1024;

/// Sends `POST path` to the Engine at `host` and returns the connection that it becomes.
pub(super) async fn open(
    operation: &'static str,
    host: &str,
    path: &str,
    body: serde_json::Value,
) -> Result<TokioIo<Upgraded>, Error> {
    let unreachable = |source: std::io::Error| Error::Unreachable { host: host.to_owned(), source: source.into() };
    let request = Request::post(path)
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|source| Error::Failed { operation, source: source.into() })?;
    match host.strip_prefix("unix://") {
        Some(socket) => send(operation, UnixStream::connect(socket).await.map_err(unreachable)?, request).await,
        None => {
            let address = host.split_once("://").map_or(host, |(_, address)| address).trim_end_matches('/');
            send(operation, TcpStream::connect(address).await.map_err(unreachable)?, request).await
        }
    }
}

async fn send(
    operation: &'static str,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<TokioIo<Upgraded>, Error> {
    let failed = |source: BoxError| Error::Failed { operation, source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(e.into()))?;
    // Ends when the answer is read, or with the upgrade.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to the Engine ended early");
        }
    });
    let response = sender.send_request(request).await.map_err(|e| failed(e.into()))?;
    let status = response.status();
    // Engines before 1.13 answer 200.
    if matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::OK) {
        return hyper::upgrade::on(response).await.map(TokioIo::new).map_err(|e| failed(e.into()));
    }
    let text = Limited::new(response.into_body(), ERROR_LIMIT).collect().await.map_err(failed)?.to_bytes();
    let message = refusal(&text);
    Err(if status == StatusCode::NOT_FOUND {
        Error::NotFound { what: message }
    } else {
        Error::Refused { operation, message }
    })
}

/// The words of a refusal, which is `{"message": "…"}`.
fn refusal(body: &[u8]) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let said = said.as_ref().and_then(|said| said["message"].as_str());
    said.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), |said| said.trim().to_owned())
}

/// What comes over such a connection.
pub(super) fn output(
    operation: &'static str,
    from: ReadHalf<TokioIo<Upgraded>>,
    tty: bool,
) -> BoxStream<'static, Result<LogChunk, Error>> {
    let decoder = if tty { OutputDecoder::Raw } else { OutputDecoder::Framed { stream: 0, left: 0 } };
    FramedRead::with_capacity(from, decoder, READ)
        .map(move |chunk| chunk.map_err(|error| Error::Failed { operation, source: error.into() }))
        .boxed()
}

/// Takes the frames off: a byte for the stream, three of padding, four for the length, then so many bytes.
enum OutputDecoder {
    /// A terminal: there are no frames.
    Raw,
    /// `left` bytes of a frame of `stream` are still to come.
    Framed { stream: u8, left: usize },
}

impl Decoder for OutputDecoder {
    type Item = LogChunk;
    type Error = std::io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<LogChunk>, std::io::Error> {
        let Self::Framed { stream, left } = self else {
            return Ok((!src.is_empty()).then(|| LogChunk::Stdout(src.split().freeze())));
        };
        while *left == 0 {
            let Some(header) = src.first_chunk::<8>().copied() else { return Ok(None) };
            let [kind, _, _, _, length @ ..] = header;
            if kind > 2 {
                return Err(std::io::Error::other(format!("the Engine sent a frame of unknown stream {kind}")));
            }
            *stream = kind;
            *left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            src.advance(header.len());
        }
        let part = src.split_to((*left).min(src.len())).freeze();
        *left = left.saturating_sub(part.len());
        Ok(match (*stream, part.is_empty()) {
            (_, true) => None,
            (2, _) => Some(LogChunk::Stderr(part)),
            _ => Some(LogChunk::Stdout(part)),
        })
    }

    /// A frame that was cut off is passed on as far as it came.
    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<LogChunk>, std::io::Error> {
        let last = self.decode(src)?;
        if last.is_none() {
            src.clear();
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0][..], &length, text].concat()
    }

    fn decoded(decoder: &mut OutputDecoder, bytes: &[u8], step: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err, mut buffer) = (Vec::new(), Vec::new(), BytesMut::new());
        for part in bytes.chunks(step) {
            buffer.extend_from_slice(part);
            while let Some(chunk) = decoder.decode(&mut buffer).unwrap() {
                match chunk {
                    LogChunk::Stdout(bytes) => out.extend_from_slice(&bytes),
                    LogChunk::Stderr(bytes) => err.extend_from_slice(&bytes),
                }
            }
        }
        (out, err)
    }

    #[test]
    fn frames_come_apart_however_they_are_cut() {
        let bytes = [frame(1, b"one"), frame(2, b"two"), frame(1, b""), frame(1, &[0, 1, 2, 3])].concat();
        for step in 1..=bytes.len() {
            let (out, err) = decoded(&mut OutputDecoder::Framed { stream: 0, left: 0 }, &bytes, step);
            assert_eq!((out.as_slice(), err.as_slice()), (&b"one\x00\x01\x02\x03"[..], &b"two"[..]), "{step}");
        }
    }

    #[test]
    fn a_terminals_output_is_passed_on_whatever_it_begins_with() {
        let bytes = frame(2, b"no frame");
        assert_eq!(decoded(&mut OutputDecoder::Raw, &bytes, 3), (bytes, Vec::new()));
    }

    #[test]
    fn a_cut_frame_is_passed_on_and_an_unknown_one_refused() {
        let mut decoder = OutputDecoder::Framed { stream: 0, left: 0 };
        let mut buffer = BytesMut::from(&frame(1, b"half")[..10]);
        assert_eq!(decoder.decode_eof(&mut buffer).unwrap(), Some(LogChunk::Stdout("ha".into())));
        assert_eq!(decoder.decode_eof(&mut buffer).unwrap(), None);
        let mut decoder = OutputDecoder::Framed { stream: 0, left: 0 };
        decoder.decode(&mut BytesMut::from(&frame(7, b"x")[..])).unwrap_err();
    }

    #[test]
    fn a_refusal_is_the_engines_words() {
        assert_eq!(refusal(br#"{"message":"container is not running\n"}"#), "container is not running");
        assert_eq!(refusal(b"bad gateway\n"), "bad gateway");
    }
}
