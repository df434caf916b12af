//! Two connections made one after both have switched protocols: bytes go through as they come, until either end closes.

use std::{future::poll_fn, io, pin::pin, task::Poll, time::Duration};

use bytes::BytesMut;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};
use tokio_util::io::poll_read_buf;

/// How long the last bytes may take to be sent after one end has closed.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// Joins the client's connection to the server's, once both have switched.
pub async fn splice(client: OnUpgrade, server: OnUpgrade) {
    match tokio::try_join!(client, server) {
        Ok((client, server)) => exchange(client, server).await,
        Err(error) => tracing::debug!(%error, "a connection did not switch protocols"),
    }
}

/// Bytes that are passed on at once: four records of TLS.
const LARGEST_PIECE: usize = 64 * 1024;

/// Copies until `from` ends. What is there is passed on at once, and together.
async fn pass_on(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut from = pin!(from);
    // Grows with what comes: most streams are small.
    let mut piece = BytesMut::new();
    loop {
        let mut has_ended = false;
        poll_fn(|context| {
            while piece.len() < LARGEST_PIECE {
                piece.reserve(READ);
                match poll_read_buf(from.as_mut(), context, &mut piece) {
                    Poll::Ready(Ok(0)) => has_ended = true,
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if piece.is_empty() => return Poll::Pending,
                    Poll::Pending => {}
                }
                break;
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        to.write_all(&piece).await?;
        to.flush().await?;
        if has_ended {
            return Ok(());
        }
        piece.clear();
    }
}

/// Bytes that one read has room for: a record of TLS.
const READ: usize = 16 * 1024;

async fn exchange(client: Upgraded, server: Upgraded) {
    let (mut from_client, mut to_client) = split(TokioIo::new(client));
    let (mut from_server, mut to_server) = split(TokioIo::new(server));
    // As in Kubernetes, the end of one direction ends both.
    let ended = tokio::select! {
        ended = pass_on(&mut from_client, &mut to_server) => ended,
        ended = pass_on(&mut from_server, &mut to_client) => ended,
    };
    if let Err(error) = ended {
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
    use tokio::io::{AsyncReadExt, duplex};

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
