//! The client's side of a connection: it opens streams.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{
    connection::{Closer, Driven, Side, drive},
    frame::{Frame, StreamId},
    header_block::Headers,
    stream::{Gone, Stream, StreamTable},
};

/// How long it may take until a server has accepted a stream, from when it is wanted: also while the connection is held
/// up and nothing can be sent. Source: `createStreamResponseTimeout` of apimachinery.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(30);
/// The largest number of a stream (section 2.3.2).
const LAST: StreamId = u32::MAX >> 1;

/// A connection to a server.
pub struct ClientConnection {
    /// Opens streams.
    pub opener: Opener,
    /// Writes on the connection itself, rather than on a stream.
    pub closer: Closer,
    /// Does all the work: to be awaited beside what uses the streams. Ends once the server is gone, takes no more
    /// streams, or has broken the protocol.
    pub driver: BoxFuture<'static, ()>,
}

impl ClientConnection {
    /// Speaks SPDY over `io`. Streams that the server opens are reset.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let Driven { frames, table, closer, driver } = drive(io, Side::Client);
        let table = Arc::downgrade(&table);
        let opener = Opener { frames, table, next: Mutex::new(1), accepted_within: ACCEPTED_WITHIN };
        Self { opener, closer, driver }
    }
}

/// Opens streams of one connection.
pub struct Opener {
    frames: mpsc::Sender<Frame>,
    table: Weak<StreamTable>,
    next: Mutex<StreamId>,
    accepted_within: Duration,
}

/// A stream that the server was asked for. It is reset where this is dropped.
pub struct OpeningStream {
    /// Until it is accepted.
    stream: Option<Stream>,
    accepted: oneshot::Receiver<()>,
    /// What is left of the time for it.
    within: Duration,
    asked: Instant,
}

/// Why there is no stream.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The connection has ended, or has no number left for another stream.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The server has reset it, or the connection has ended meanwhile.
    #[error("the server did not accept a stream")]
    NotAccepted,
    /// The server says nothing: perhaps a stream that nobody reads holds up the connection.
    #[error("the server did not accept a stream within {} seconds", ACCEPTED_WITHIN.as_secs())]
    Unanswered,
}

impl Opener {
    /// Asks for a stream with these headers.
    pub async fn open(&self, headers: Headers) -> Result<OpeningStream, OpenError> {
        let wanted = Instant::now();
        let place = timeout(self.accepted_within, self.frames.reserve()).await.map_err(|_| OpenError::Unanswered)?;
        let place = place.map_err(|_| Gone)?;
        let table = self.table.upgrade().ok_or(Gone)?;
        let (to_opening, accepted) = oneshot::channel();
        // Held until the frame is queued: numbers only grow on the wire.
        let mut next = self.next.lock();
        let id = *next;
        if id > LAST {
            return Err(Gone.into());
        }
        *next = id.saturating_add(2);
        let stream = table.open(id, headers.clone(), self.frames.clone(), Some(to_opening));
        place.send(Frame::SynStream { stream: id, fin: false, headers });
        let within = self.accepted_within.saturating_sub(wanted.elapsed());
        Ok(OpeningStream { stream: Some(stream), accepted, within, asked: Instant::now() })
    }
}

impl OpeningStream {
    /// The stream, once the server has accepted it; where it says nothing, the stream is reset.
    pub async fn accepted(mut self) -> Result<Stream, OpenError> {
        let within = self.within.saturating_sub(self.asked.elapsed());
        match timeout(within, &mut self.accepted).await {
            Ok(Ok(())) => self.stream.take().ok_or(OpenError::NotAccepted),
            Ok(Err(_)) => Err(OpenError::NotAccepted),
            Err(_) => Err(OpenError::Unanswered),
        }
    }
}

impl Drop for OpeningStream {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::{io::DuplexStream, task::JoinHandle};

    use super::{
        super::{
            connection::Connection, frame::ResetStatus, stream::StreamWriter, test_client::TestClient as TestPeer,
        },
        *,
    };

    const HEADERS: [(&str, &str); 1] = [("streamtype", "data")];

    /// A client whose server is a script.
    fn scripted() -> (Opener, Closer, JoinHandle<()>, TestPeer<DuplexStream>) {
        let (client, server) = tokio::io::duplex(4096);
        let ClientConnection { opener, closer, driver } = ClientConnection::new(client);
        (opener, closer, tokio::spawn(driver), TestPeer::new(server))
    }

    async fn opened(opener: &Opener, server: &mut TestPeer<DuplexStream>, id: StreamId) -> Stream {
        let opening = opener.open(HEADERS.into_iter().collect()).await.unwrap();
        let headers = HEADERS.into_iter().collect();
        assert_eq!(server.next().await, Some(Frame::SynStream { stream: id, fin: false, headers }));
        server.send(Frame::SynReply { stream: id, fin: false, headers: Headers::default() }).await;
        opening.accepted().await.unwrap()
    }

    #[tokio::test]
    async fn what_a_client_opens_a_server_takes_and_each_way_ends_by_itself() {
        let (client, server) = tokio::io::duplex(4096);
        let mut served = Connection::new(server, 10, |_| true);
        let client = ClientConnection::new(client);
        tokio::spawn(served.driver);
        tokio::spawn(client.driver);
        for id in [1, 3] {
            let opening = client.opener.open(HEADERS.into_iter().collect()).await.unwrap();
            let mut theirs = served.incoming.recv().await.unwrap();
            let mut ours = opening.accepted().await.unwrap();
            assert_eq!((ours.id, theirs.id, theirs.headers.get("streamtype")), (id, id, "data"));
            ours.writer.write(Bytes::from_static(b"all")).await.unwrap();
            ours.writer.finish().await.unwrap();
            assert_eq!(&theirs.reader.next().await.unwrap()[..], b"all");
            assert!(theirs.reader.next().await.is_none());
            theirs.writer.write(Bytes::from_static(b"answer")).await.unwrap();
            theirs.writer.finish().await.unwrap();
            assert_eq!(&ours.reader.next().await.unwrap()[..], b"answer");
            assert!(ours.reader.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_reset_instead_of_accepted_is_told() {
        let (opener, _closer, _driver, mut server) = scripted();
        let opening = opener.open(Headers::default()).await.unwrap();
        assert!(matches!(server.next().await, Some(Frame::SynStream { stream: 1, .. })));
        server.send(Frame::RstStream { stream: 1, status: ResetStatus::REFUSED_STREAM }).await;
        assert_eq!(opening.accepted().await.err(), Some(OpenError::NotAccepted));
        opened(&opener, &mut server, 3).await;
    }

    #[tokio::test]
    async fn a_stream_that_nobody_accepts_is_reset_in_the_end() {
        let (mut opener, _closer, _driver, mut server) = scripted();
        opener.accepted_within = Duration::from_millis(20);
        let opening = opener.open(Headers::default()).await.unwrap();
        assert_eq!(opening.accepted().await.err(), Some(OpenError::Unanswered));
        assert!(matches!(server.next().await, Some(Frame::SynStream { stream: 1, .. })));
        let reset = Frame::RstStream { stream: 1, status: ResetStatus::CANCEL };
        assert_eq!(server.next().await, Some(reset));
    }

    #[tokio::test]
    async fn what_came_before_a_reset_or_the_end_of_the_connection_is_read() {
        let (opener, _closer, driver, mut server) = scripted();
        let mut reset = opened(&opener, &mut server, 1).await;
        let mut cut = opened(&opener, &mut server, 3).await;
        server.write(1, "one").await;
        server.send(Frame::RstStream { stream: 1, status: ResetStatus::CANCEL }).await;
        server.write(3, "three").await;
        server.send(Frame::GoAway { last: 3 }).await;
        driver.await.unwrap();
        reset.writer.gone().await;
        for (stream, text) in [(&mut reset, "one"), (&mut cut, "three")] {
            assert_eq!(&stream.reader.next().await.unwrap()[..], text.as_bytes());
            assert!(stream.reader.next().await.is_none());
            assert_eq!(stream.writer.write(Bytes::from_static(b"x")).await, Err(Gone));
        }
        assert_eq!(opener.open(Headers::default()).await.err(), Some(OpenError::Gone(Gone)));
    }

    /// What is wanted while the connection is held up ends in its own time; more than that is not waited for.
    async fn ends<T>(work: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(20), work).await.expect("it ends though the connection is held up")
    }

    /// Writes until nothing more is taken.
    async fn hold_up(writer: &StreamWriter) {
        let piece = || writer.write(Bytes::from(vec![0; 1024]));
        while let Ok(written) = timeout(Duration::from_millis(50), piece()).await {
            written.unwrap();
        }
    }

    /// The next frame that is no data.
    async fn next_beside_data(server: &mut TestPeer<DuplexStream>) -> Option<Frame> {
        loop {
            match server.next().await {
                Some(Frame::Data { .. }) => {}
                other => return other,
            }
        }
    }

    #[tokio::test]
    async fn the_time_for_a_stream_passes_while_the_connection_is_held_up() {
        let (mut opener, _closer, _driver, mut server) = scripted();
        let flood = opened(&opener, &mut server, 1).await;
        opener.accepted_within = Duration::from_millis(20);
        hold_up(&flood.writer).await;
        let unanswered = ends(opener.open(Headers::default())).await.err();
        assert_eq!(unanswered, Some(OpenError::Unanswered));
        // The server was not asked for it.
        opener.accepted_within = ACCEPTED_WITHIN;
        let (asked, _opening) = tokio::join!(next_beside_data(&mut server), opener.open(Headers::default()));
        assert!(matches!(asked, Some(Frame::SynStream { stream: 3, .. })), "{asked:?}");
    }

    #[tokio::test]
    async fn a_stream_that_is_given_up_while_the_connection_is_held_up_is_reset_when_it_goes_on() {
        let (mut opener, _closer, _driver, mut server) = scripted();
        let flood = opened(&opener, &mut server, 1).await;
        opener.accepted_within = Duration::from_millis(300);
        let opening = opener.open(Headers::default()).await.unwrap();
        let dropped = opener.open(Headers::default()).await.unwrap();
        hold_up(&flood.writer).await;
        drop(dropped);
        assert_eq!(ends(opening.accepted()).await.err(), Some(OpenError::Unanswered));
        for stream in [3, 5] {
            let asked = next_beside_data(&mut server).await;
            assert!(matches!(asked, Some(Frame::SynStream { stream: id, .. }) if id == stream), "{asked:?}");
        }
        for stream in [5, 3] {
            let reset = Frame::RstStream { stream, status: ResetStatus::CANCEL };
            assert_eq!(next_beside_data(&mut server).await, Some(reset));
        }
    }

    #[tokio::test]
    async fn pings_of_the_server_come_back_and_its_streams_are_reset() {
        let (_opener, closer, _driver, mut server) = scripted();
        // The first is an answer.
        for ping in [1, 4] {
            server.send(Frame::Ping(ping)).await;
        }
        assert_eq!(server.next().await, Some(Frame::Ping(4)));
        server.send_open(2, &HEADERS).await;
        let reset = Frame::RstStream { stream: 2, status: ResetStatus::REFUSED_STREAM };
        assert_eq!(server.next().await, Some(reset));
        closer.heartbeat().unwrap();
        assert_eq!(server.next().await, Some(Frame::Ping(1)));
    }

    #[tokio::test]
    async fn without_a_number_that_is_left_no_stream_is_opened() {
        let (opener, _closer, _driver, mut server) = scripted();
        *opener.next.lock() = LAST;
        opened(&opener, &mut server, LAST).await;
        assert_eq!(opener.open(Headers::default()).await.err(), Some(OpenError::Gone(Gone)));
    }
}
