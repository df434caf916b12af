//! A client of SPDY/3.1 for tests: sends and reads single frames.

use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_util::codec::{Encoder, FramedRead};

use super::{
    frame::{Frame, FrameDecoder, FrameEncoder, StreamId},
    header_block::Headers,
};

/// One connection to a server.
pub struct TestClient<I> {
    from: FramedRead<ReadHalf<I>, FrameDecoder>,
    to: WriteHalf<I>,
    encoder: FrameEncoder,
}

impl<I: AsyncRead + AsyncWrite> TestClient<I> {
    pub fn new(io: I) -> Self {
        let (from, to) = tokio::io::split(io);
        Self { from: FramedRead::new(from, FrameDecoder::default()), to, encoder: FrameEncoder::default() }
    }

    pub async fn send(&mut self, frame: Frame) {
        let mut bytes = bytes::BytesMut::new();
        self.encoder.encode(frame, &mut bytes).unwrap();
        self.to.write_all(&bytes).await.unwrap();
        self.to.flush().await.unwrap();
    }

    /// Opens a stream and waits until it is accepted.
    pub async fn open(&mut self, stream: StreamId, headers: &[(&str, &str)]) {
        self.send_open(stream, headers).await;
        let reply = self.next().await;
        assert!(matches!(reply, Some(Frame::SynReply { stream: replied, .. }) if replied == stream), "{reply:?}");
    }

    pub async fn send_open(&mut self, stream: StreamId, headers: &[(&str, &str)]) {
        let headers: Headers = headers.iter().copied().collect();
        self.send(Frame::SynStream { stream, fin: false, headers }).await;
    }

    pub async fn write(&mut self, stream: StreamId, bytes: impl Into<Bytes>) {
        self.send(Frame::Data { stream, fin: false, bytes: bytes.into() }).await;
    }

    pub async fn finish(&mut self, stream: StreamId) {
        self.send(Frame::Data { stream, fin: true, bytes: Bytes::new() }).await;
    }

    /// The next frame; `None` where the server has closed.
    pub async fn next(&mut self) -> Option<Frame> {
        self.from.next().await.map(|frame| frame.expect("the server writes frames"))
    }

    /// All data of a stream until its end; what comes on others is put into `others`.
    pub async fn read_to_end(&mut self, stream: StreamId, others: &mut Vec<Frame>) -> Vec<u8> {
        let mut read = Vec::new();
        loop {
            match self.next().await.expect("the stream ends before the connection") {
                Frame::Data { stream: of, fin, bytes } if of == stream => {
                    read.extend_from_slice(&bytes);
                    if fin {
                        return read;
                    }
                }
                Frame::RstStream { stream: of, .. } if of == stream => return read,
                other => others.push(other),
            }
        }
    }
}
