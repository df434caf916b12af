//! Reads of a connection under TLS: few large ones while much comes, and no memory while nothing does.
//!
//! rustls takes 4 KiB from its connection at a time, so that a record of 16 KiB costs five system calls. A buffer that
//! is always there would cost each of ten thousand idle connections its size.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// `inner`, with a buffer of [`BULK`] bytes for as long as more comes than is asked for.
pub struct BulkReads<S> {
    inner: S,
    /// How many reads in a row have got all that they asked for.
    full_reads: u8,
    buffer: Option<Box<Buffered>>,
}

/// What was read ahead: `bytes[start..end]`.
struct Buffered {
    bytes: [u8; BULK],
    start: usize,
    end: usize,
}

/// Bytes that are read at once: four records of TLS.
const BULK: usize = 64 * 1024;
/// A request or an answer of ordinary size is over after fewer.
const FULL_READS_OF_A_BULK: u8 = 8;

impl<S> BulkReads<S> {
    /// Reads from `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner, full_reads: 0, buffer: None }
    }

    /// The connection itself, for its options and addresses. Reading from it would lose what was read ahead.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl Buffered {
    fn new() -> Box<Self> {
        Box::new(Self { bytes: [0; BULK], start: 0, end: 0 })
    }

    fn take(&mut self, into: &mut ReadBuf<'_>) {
        let unread = &self.bytes[self.start..self.end];
        let taken = &unread[..unread.len().min(into.remaining())];
        into.put_slice(taken);
        self.start = self.start.saturating_add(taken.len());
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BulkReads<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, full_reads, buffer } = &mut *self;
        if let Some(buffered) = buffer {
            if buffered.start == buffered.end {
                let mut bulk = ReadBuf::new(&mut buffered.bytes);
                let polled = Pin::new(&mut *inner).poll_read(context, &mut bulk);
                (buffered.start, buffered.end) = (0, bulk.filled().len());
                if !matches!(polled, Poll::Ready(Ok(()))) {
                    // Nothing comes for now, and nothing is lost.
                    *buffer = None;
                    *full_reads = 0;
                    return polled;
                }
            }
            buffered.take(into);
            return Poll::Ready(Ok(()));
        }
        let (before, wanted) = (into.filled().len(), into.remaining());
        ready!(Pin::new(inner).poll_read(context, into))?;
        let is_full = into.filled().len().saturating_sub(before) == wanted;
        *full_reads = if is_full { full_reads.saturating_add(1) } else { 0 };
        if *full_reads >= FULL_READS_OF_A_BULK {
            *buffer = Some(Buffered::new());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BulkReads<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Gives what there is, as much as is asked for, and counts how often it was asked.
    struct Source {
        left: usize,
        reads: usize,
    }

    impl AsyncRead for Source {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.reads += 1;
            let taken = self.left.min(into.remaining());
            into.put_slice(&vec![7; taken]);
            self.left -= taken;
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_comes_in_bulk_is_read_in_few_large_reads() {
        let mut reads = BulkReads::new(Source { left: 100 * BULK + 5, reads: 0 });
        let mut piece = [0; 4096];
        let mut got = 0;
        loop {
            match reads.read(&mut piece).await.unwrap() {
                0 => break,
                read => got += read,
            }
        }
        assert_eq!(got, 100 * BULK + 5);
        assert!(reads.inner.reads < 120, "{}", reads.inner.reads);
    }

    #[tokio::test]
    async fn a_connection_that_rests_holds_no_buffer_and_nothing_is_lost() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut reads = BulkReads::new(server);
        let sent: Vec<u8> = (0..300_000u32).flat_map(u32::to_ne_bytes).collect();
        for sent in sent.chunks(500_000) {
            client.write_all(sent).await.unwrap();
            let mut got = vec![0; sent.len()];
            for piece in got.chunks_mut(4096) {
                reads.read_exact(piece).await.unwrap();
            }
            assert!(got == sent);
            assert!(futures::poll!(Box::pin(reads.read(&mut [0; 10]))).is_pending());
            assert!(reads.buffer.is_none(), "nothing comes");
        }
        for _ in 0..100 {
            client.write_all(b"a request").await.unwrap();
            assert_eq!(reads.read(&mut [0; 4096]).await.unwrap(), 9);
            assert!(reads.buffer.is_none(), "little comes");
        }
    }
}
