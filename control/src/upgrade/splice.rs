//! Two connections made one after both have switched protocols: bytes go through as they come, until either end closes.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};
use tokio_util::io::poll_read_buf;

/// How long the last bytes may take to be sent after one end has closed.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// Bytes that are passed on at once: four records of TLS.
const LARGEST_PIECE: usize = 64 * 1024;
/// Bytes that one read has room for: a record of TLS.
const READ: usize = 16 * 1024;

/// Joins the client's connection to the server's, once both have switched.
pub async fn splice(client: OnUpgrade, server: OnUpgrade) {
    match tokio::try_join!(client, server) {
        Ok((client, server)) => exchange(TokioIo::new(client), TokioIo::new(server)).await,
        Err(error) => tracing::debug!(%error, "a connection did not switch protocols"),
    }
}

/// Copies until `from` ends. What is there is passed on at once, and together; also what came before an error.
async fn pass_on(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut from = pin!(from);
    loop {
        let (piece, end) = poll_fn(|context| poll_piece(from.as_mut(), context)).await;
        to.write_all(&piece).await?;
        to.flush().await?;
        if let Some(end) = end {
            return end;
        }
    }
}

/// What there is to read, up to [`LARGEST_PIECE`], and how it ended. Holds no memory while nothing comes.
fn poll_piece(
    mut from: Pin<&mut impl AsyncRead>,
    context: &mut Context<'_>,
) -> Poll<(BytesMut, Option<io::Result<()>>)> {
    let mut piece = BytesMut::new();
    while piece.len() < LARGEST_PIECE {
        piece.reserve(READ);
        match poll_read_buf(from.as_mut(), context, &mut piece) {
            Poll::Ready(Ok(0)) => return Poll::Ready((piece, Some(Ok(())))),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready((piece, Some(Err(error)))),
            Poll::Pending if piece.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready((piece, None))
}

async fn exchange(client: impl AsyncRead + AsyncWrite, server: impl AsyncRead + AsyncWrite) {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    let (ended, last_bytes) = {
        let mut up = pin!(pass_on(&mut from_client, &mut to_server));
        let mut down = pin!(pass_on(&mut from_server, &mut to_client));
        // As in Kubernetes, the end of one direction ends both.
        tokio::select! {
            ended = &mut up => match ended {
                Ok(()) => (Ok(()), Ok(())),
                // A server that takes nothing any more may have said why.
                Err(_) => (ended, tokio::time::timeout(LAST_BYTES, down).await.unwrap_or(Ok(()))),
            },
            ended = &mut down => (ended, Ok(())),
        }
    };
    for error in [ended.err(), last_bytes.err()].into_iter().flatten() {
        tracing::debug!(%error, "an upgraded connection broke off");
    }
    // A client that still sends is read from until it closes: to close before it does would have the kernel reset the
    // connection, and throw away the last bytes of the answer.
    let client_closed = async {
        to_client.shutdown().await?;
        copy(&mut from_client, &mut tokio::io::sink()).await.map(drop)
    };
    let closed = async { tokio::join!(client_closed, to_server.shutdown()) };
    if let Ok((Err(error), _) | (_, Err(error))) = tokio::time::timeout(LAST_BYTES, closed).await {
        tracing::debug!(%error, "an upgraded connection could not be closed");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, ReadBuf, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_there_is_passed_on_at_once_and_all_of_it_comes() {
        let (mut client, from) = duplex(1 << 20);
        let (to, mut server) = duplex(100_000);
        let passing = tokio::spawn(async move {
            let (mut from, mut to) = (from, to);
            pass_on(&mut from, &mut to).await
        });
        // Though more may come.
        client.write_all(b"a key").await.unwrap();
        let mut key = [0; 5];
        server.read_exact(&mut key).await.unwrap();
        assert_eq!(&key, b"a key");
        let sent: Vec<u8> = (0..400_000u32).flat_map(u32::to_ne_bytes).collect();
        let expected = sent.clone();
        let sending = async {
            client.write_all(&sent).await.unwrap();
            drop(client);
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(sending, server.read_to_end(&mut got));
        read.unwrap();
        assert!(got == expected, "{} bytes", got.len());
        passing.await.unwrap().unwrap();
    }

    /// Gives these bytes, and is reset.
    struct BreaksOff(&'static [u8]);

    impl AsyncRead for BreaksOff {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            match std::mem::take(&mut self.0) {
                [] => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                bytes => {
                    into.put_slice(bytes);
                    Poll::Ready(Ok(()))
                }
            }
        }
    }

    #[tokio::test]
    async fn what_came_before_a_connection_broke_off_is_passed_on() {
        let mut from = BreaksOff(b"the last words");
        let mut to = Vec::new();
        let broken = pass_on(&mut from, &mut to).await.unwrap_err();
        assert_eq!((to.as_slice(), broken.kind()), (&b"the last words"[..], io::ErrorKind::ConnectionReset));
    }

    /// Takes nothing, and says why only afterwards.
    struct Refuses {
        has_been_written_to: bool,
        words: &'static [u8],
        waiting: Option<std::task::Waker>,
    }

    impl AsyncRead for Refuses {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if !self.has_been_written_to {
                self.waiting = Some(context.waker().clone());
                return Poll::Pending;
            }
            into.put_slice(std::mem::take(&mut self.words));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Refuses {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            self.has_been_written_to = true;
            if let Some(waiting) = self.waiting.take() {
                waiting.wake();
            }
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_server_that_takes_nothing_any_more_is_heard_to_the_end() {
        // So narrow that its words do not go through at once.
        let (mut client, from) = duplex(4);
        let server = Refuses { has_been_written_to: false, words: b"no more than that", waiting: None };
        let exchanging = tokio::spawn(exchange(from, server));
        client.write_all(b"and").await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"no more than that");
        drop(client);
        exchanging.await.unwrap();
    }

    #[tokio::test]
    async fn a_side_that_takes_nothing_holds_back_the_other() {
        let (mut client, mut from) = duplex(1000);
        let (mut to, _server) = duplex(1000);
        let passing = pass_on(&mut from, &mut to);
        let sending = async { client.write_all(&vec![0; 10 * LARGEST_PIECE]).await };
        let sent = tokio::select! {
            _ = passing => true,
            _ = sending => true,
            () = async { for _ in 0..10_000 { tokio::task::yield_now().await } } => false,
        };
        assert!(!sent);
    }
}
