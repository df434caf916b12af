//! Long bodies that are made while they are sent, and compressed on the way for a client that takes that: they take
//! little memory beside what they are made of, and their first bytes leave at once.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll},
};

use axum::response::Response;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as HttpBody, Frame};

use super::response::{COMPRESS_FROM, COMPRESSION, encoded, streamed};
use crate::request::{accept::Encoding, held_bytes::HeldBytes};

/// Bytes that are made at once: a few TLS records, and little enough for the processor's cache.
const PIECE: usize = 64 << 10;

/// What makes the bytes of a body in order.
pub trait Piecewise: Send + Unpin + 'static {
    /// Adds what comes next to `out`, until that has `enough` bytes or nothing follows; answers whether any follows.
    fn write(&mut self, out: &mut Vec<u8>, enough: usize) -> io::Result<bool>;

    /// How many bytes of memory it may keep from being freed, about.
    fn held_bytes(&self) -> usize;
}

/// An answer with this body. Whether it is long enough to be compressed is known after its first piece.
pub fn answer(encoding: Encoding, gzip: bool, mut source: impl Piecewise) -> io::Result<Response> {
    let mut first = Vec::with_capacity(PIECE + PIECE / 4);
    let goes_on = source.write(&mut first, if gzip { COMPRESS_FROM + 1 } else { PIECE })?;
    let is_packed = gzip && first.len() > COMPRESS_FROM;
    if !goes_on && !is_packed {
        return Ok(encoded(StatusCode::OK, encoding, first));
    }
    let packed = is_packed.then(|| GzEncoder::new(Vec::new(), COMPRESSION));
    let held = HeldBytes(source.held_bytes().saturating_add(PIECE));
    let body = PiecewiseBody { source, next: Some(first), goes_on, packed };
    let mut response = streamed(StatusCode::OK, encoding, body);
    response.extensions_mut().insert(held);
    if is_packed {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    Ok(response)
}

struct PiecewiseBody<P> {
    source: P,
    /// A piece that was made and not sent.
    next: Option<Vec<u8>>,
    /// Whether the source has more.
    goes_on: bool,
    packed: Option<GzEncoder<Vec<u8>>>,
}

impl<P: Piecewise> PiecewiseBody<P> {
    /// The next bytes as they are sent; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let piece = match self.next.take() {
                Some(piece) => Some(piece),
                None if self.goes_on => {
                    let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
                    self.goes_on = self.source.write(&mut piece, PIECE)?;
                    Some(piece)
                }
                None => None,
            };
            let sent = match (&mut self.packed, piece) {
                (None, piece) => return Ok(piece),
                (Some(packed), Some(piece)) => {
                    packed.write_all(&piece)?;
                    std::mem::take(packed.get_mut())
                }
                (Some(_), None) => return self.packed.take().map(GzEncoder::finish).transpose(),
            };
            // Much of what is written may become few bytes, or none yet.
            if !sent.is_empty() {
                return Ok(Some(sent));
            }
        }
    }
}

impl<P: Piecewise> HttpBody for PiecewiseBody<P> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(self.next().transpose().map(|next| next.map(|piece| Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && !self.goes_on && self.packed.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use futures::StreamExt;

    use super::*;

    /// So many lines of 1000 bytes.
    struct Lines(usize);

    impl Piecewise for Lines {
        fn write(&mut self, out: &mut Vec<u8>, enough: usize) -> io::Result<bool> {
            while self.0 > 0 && out.len() < enough {
                out.extend(format!("{:0>999}\n", self.0).bytes());
                self.0 -= 1;
            }
            Ok(self.0 > 0)
        }

        fn held_bytes(&self) -> usize {
            self.0 * 1000
        }
    }

    async fn pieces(lines: usize, gzip: bool) -> (bool, Vec<Bytes>) {
        let response = answer(Encoding::Json, gzip, Lines(lines)).unwrap();
        let is_packed = response.headers().contains_key("content-encoding");
        let is_whole = response.body().size_hint().exact().is_some();
        let held = response.extensions().get::<HeldBytes>().map(|held| held.0);
        assert!(is_whole || held.is_some_and(|held| held > (lines - lines.min(140)) * 1000), "{lines}: {held:?}");
        (is_packed, response.into_body().into_data_stream().map(|piece| piece.unwrap()).collect().await)
    }

    #[tokio::test]
    async fn a_body_is_the_same_in_one_piece_in_many_and_compressed() {
        for lines in [0, 1, 100, 128, 132, 5000] {
            let mut whole = Vec::new();
            Lines(lines).write(&mut whole, usize::MAX).unwrap();
            let (is_packed, plain) = pieces(lines, false).await;
            assert!(!is_packed && plain.concat() == whole, "{lines}");
            assert!(plain.iter().all(|piece| piece.len() < PIECE + 1000));
            let (is_packed, packed) = pieces(lines, true).await;
            assert_eq!(is_packed, whole.len() > COMPRESS_FROM, "{lines}");
            if is_packed {
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(&*packed.concat()).read_to_end(&mut unpacked).unwrap();
                assert!(unpacked == whole, "{lines}");
            } else {
                assert!(packed.concat() == whole, "{lines}");
            }
        }
    }
}
