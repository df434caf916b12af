//! The body of an answer that has an end: it keeps the memory of the answer until it is sent, and a seat that its
//! request still has for as long as [`AnswerSeat`] says, and is cut off in time.
//!
//! A client that opens no window never has the server poll the body, so the time is not kept by polling: the timer of
//! its connection ([`OpenAnswers`]) takes the content away. What is handed over goes in pieces that hold little else
//! alive, since the connection keeps a piece for as long as the client does not take it; and each piece holds the
//! answer's memory, since the connection lets go of the body as soon as it has the last one.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use fairlead_serving::http_connection::MAX_SEND_BUFFER;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    answer_seat::{AnswerSeat, NextCheck},
    open_answers::{CutOff, OpenAnswer, OpenAnswers},
};
use crate::flow_control::shares::Share;

/// Longest piece that is handed over at a time, bytes: a frame of HTTP/2 as clients take it by default.
pub const PIECE: usize = 16 << 10;

/// Longest part of a body that is cut into pieces where it stands, so that each piece holds all of it: a long answer
/// that is made while it is sent is not copied once more.
const CUT_IN_PLACE: usize = 5 * PIECE;

/// What pieces that were handed over keep alive at most: a connection has [`MAX_SEND_BUFFER`] bytes of a body, and the
/// piece with which they became as many, from two parts.
const HANDED_OVER: usize = 2 * CUT_IN_PLACE;
const _: () = assert!(MAX_SEND_BUFFER + PIECE <= CUT_IN_PLACE);

/// A body with what it holds.
pub struct HeldBody {
    held: Arc<Mutex<SentBody>>,
    /// Dropped with the body.
    _open: OpenAnswer,
}

struct SentBody {
    /// `None` once its time is over.
    content: Option<Content>,
    /// What the connection has of a body is still counted, until it has sent or dropped the last piece.
    memory: Option<Arc<Mutex<Share>>>,
}

/// What was handed over, with the memory of the whole.
struct Piece {
    bytes: Bytes,
    _memory: Arc<Mutex<Share>>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// How pieces are made of what a body gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    InPlace,
    /// A slice would keep the whole alive.
    Copied,
}

struct Content {
    body: Body,
    /// What the body gave and was not handed over.
    rest: Bytes,
    /// How its pieces are made.
    cut: Cut,
    seat: Option<AnswerSeat>,
}

impl HeldBody {
    /// `body`, which holds `seat` and `memory` until it is sent, at most for as long as `answers` last.
    pub fn new(body: Body, seat: Option<AnswerSeat>, memory: Option<Share>, answers: &OpenAnswers) -> Self {
        let first_check = seat.as_ref().and_then(AnswerSeat::first_check);
        let content = Content { body, rest: Bytes::new(), cut: Cut::InPlace, seat };
        let memory = memory.map(Mutex::new).map(Arc::new);
        let held = Arc::new(Mutex::new(SentBody { content: Some(content), memory }));
        let weak: Weak<Mutex<SentBody>> = Arc::downgrade(&held);
        Self { held, _open: answers.begin(weak, first_check) }
    }
}

impl CutOff for Mutex<SentBody> {
    fn cut_off(&self) {
        let mut held = self.lock();
        let cut = held.content.take();
        if let Some(memory) = &held.memory {
            memory.lock().shrink_to(HANDED_OVER);
        }
        drop(held);
        drop(cut);
    }

    fn check(&self, now: Instant) -> Option<Instant> {
        let next = self.lock().content.as_mut()?.seat.as_mut()?.check(now);
        match next {
            NextCheck::At(next) => Some(next),
            NextCheck::Never => None,
            NextCheck::CutOff => {
                self.cut_off();
                None
            }
        }
    }
}

impl Content {
    /// What comes next. The seat is kept while it is made, and given back when nothing follows.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(seat) = &mut self.seat {
            seat.wait_ends(Instant::now());
        }
        let polled = self.poll_piece(cx);
        if let Some(seat) = &mut self.seat
            && let Poll::Ready(piece) = &polled
        {
            let is_made = !matches!(piece, Some(Ok(_))) || self.body.is_end_stream();
            seat.wait_begins(Instant::now(), is_made);
        }
        polled
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.len() > PIECE => {
                        self.cut = if data.len() <= CUT_IN_PLACE { Cut::InPlace } else { Cut::Copied };
                        self.rest = data;
                    }
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return other,
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        let piece = match self.cut {
            Cut::InPlace => piece,
            Cut::Copied => Bytes::copy_from_slice(&piece),
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut held = self.held.lock();
        let SentBody { content, memory } = &mut *held;
        match content {
            Some(content) => content.poll(cx).map_ok(|frame| match memory {
                Some(memory) => frame.map_data(|bytes| Bytes::from_owner(Piece { bytes, _memory: memory.clone() })),
                None => frame,
            }),
            None => Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.lock().content.as_ref().is_some_and(|content| content.rest.is_empty() && content.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.lock();
        let Some(content) = held.content.as_ref() else { return SizeHint::default() };
        let (inner, rest) = (content.body.size_hint(), u64::try_from(content.rest.len()).unwrap_or(u64::MAX));
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;
    use crate::{flow_control::in_flight::InFlight, identity::Identity, request::tests::info};

    fn seat(limits: &InFlight) -> Option<AnswerSeat> {
        let user = Identity::authenticated("joe".into(), Vec::new());
        limits.enter(&user, &info("GET", "/openapi/v2")).ok().map(Arc::new).map(AnswerSeat::until_sent)
    }

    /// As a connection's, which runs.
    fn cutting_after(longest: Duration) -> OpenAnswers {
        let answers = OpenAnswers::lasting(longest);
        let run = answers.clone();
        tokio::spawn(async move { run.cut_late().await });
        answers
    }

    #[tokio::test]
    async fn a_body_keeps_its_seat_until_it_is_sent_and_goes_in_pieces() {
        let limits = InFlight::new(1, 1);
        for length in [PIECE * 2 + 5, CUT_IN_PLACE, CUT_IN_PLACE + 1] {
            keeps_its_seat(limits.clone(), length).await;
        }
    }

    async fn keeps_its_seat(limits: InFlight, length: usize) {
        let text: Bytes = (0..length).map(|n| n as u8).collect();
        let mut body = HeldBody::new(Body::from(text.clone()), seat(&limits), None, &OpenAnswers::default());
        assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
        let mut sent = Vec::new();
        while sent.len() < text.len() {
            assert!(seat(&limits).is_none() && !body.is_end_stream());
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE);
            assert_eq!(text.as_ptr_range().contains(&piece.as_ptr()), length <= CUT_IN_PLACE);
            sent.extend_from_slice(&piece);
            assert_eq!(body.size_hint().exact(), Some((text.len() - sent.len()) as u64));
        }
        assert!(sent == text && body.is_end_stream() && body.frame().await.is_none());
        drop(body);
        assert!(seat(&limits).is_some());
    }

    #[tokio::test]
    async fn a_body_that_nobody_polls_gives_everything_back_in_time() {
        let limits = InFlight::new(1, 1);
        let text = Bytes::from(vec![0; PIECE * 2]);
        let answers = cutting_after(Duration::from_millis(200));
        let mut body = HeldBody::new(Body::from(text.clone()), seat(&limits), None, &answers);
        body.frame().await.unwrap().unwrap();
        assert!(seat(&limits).is_none() && !text.is_unique());
        let given_back = async {
            while !text.is_unique() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), given_back).await.expect("it is cut off in time");
        assert!(seat(&limits).is_some());
        assert!(body.frame().await.unwrap().is_err(), "it is seen to be broken off");
    }

    #[tokio::test]
    async fn a_body_without_memory_is_cut_off_once_its_client_had_the_server_wait_for_long() {
        let limits = InFlight::new(1, 1);
        let user = Identity::authenticated("joe".into(), Vec::new());
        let seat = limits.enter(&user, &info("GET", "/openapi/v2")).map(Arc::new).unwrap();
        let text = Bytes::from(vec![0; PIECE * 2]);
        let mut body =
            HeldBody::new(Body::from(text.clone()), Some(AnswerSeat::overdrawn(seat)), None, &OpenAnswers::default());
        body.frame().await.unwrap().unwrap();
        let (begun, seconds) = (Instant::now(), Duration::from_secs);
        assert!(body.held.check(begun + seconds(9)).is_some_and(|next| next > begun + seconds(9)));
        assert!(limits.enter(&user, &info("GET", "/openapi/v2")).is_err(), "the seat bounds such answers");
        assert_eq!(body.held.check(begun + seconds(10)), None);
        assert!(limits.enter(&user, &info("GET", "/openapi/v2")).is_ok() && text.is_unique());
        assert!(body.frame().await.unwrap().is_err(), "it is seen to be broken off");
    }

    #[tokio::test]
    async fn what_the_connection_has_of_a_body_that_is_cut_off_stays_counted() {
        let memory = crate::flow_control::shares::Shares::new(100 * PIECE, usize::MAX);
        let (text, share) = (Bytes::from(vec![0; PIECE * 40]), memory.take("joe", PIECE * 40));
        let answers = cutting_after(Duration::from_millis(1));
        let body = HeldBody::new(Body::from(text.clone()), None, share, &answers);
        let cut_off = async {
            while !text.is_unique() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), cut_off).await.expect("it is cut off in time");
        assert_eq!(memory.taken(), HANDED_OVER);
        drop(body);
        assert_eq!(memory.taken(), 0);
    }

    #[tokio::test]
    async fn memory_is_held_until_the_connection_has_sent_the_last_piece() {
        let memory = crate::flow_control::shares::Shares::new(100 * PIECE, usize::MAX);
        for length in [5, PIECE * 3, PIECE * 40] {
            let share = memory.take("joe", length);
            let mut body = HeldBody::new(Body::from(vec![0; length]), None, share, &OpenAnswers::default());
            let mut pieces = Vec::new();
            while let Some(piece) = body.frame().await {
                pieces.push(piece.unwrap().into_data().unwrap());
            }
            drop(body);
            assert_eq!(memory.taken(), length);
            let last = pieces.pop();
            drop(pieces);
            assert_eq!(memory.taken(), length);
            drop(last);
            assert_eq!(memory.taken(), 0);
        }
    }
}
