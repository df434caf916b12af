//! Answers that have an end, with the seat and the memory that they hold until they are made, or sent.

use std::sync::Arc;

use axum::body::Body;
use fairlead_serving::http_connection::MAX_SEND_BUFFER;
use http::{Response, StatusCode};
use http_body::Body as _;

use super::Gate;
use crate::{
    auth::{
        answer_seat::AnswerSeat,
        held_body::{self, HeldBody},
        open_answers::OpenAnswers,
    },
    flow_control::{
        seat::{AnswerMemory, Seat},
        too_many::TooMany,
    },
    request::held_bytes::HeldBytes,
};

/// What is counted for an answer of unknown length that another server makes, bytes: the connection to that server
/// takes no more before it is passed on than its buffer holds, nor that to the client. Counted, it bounds how many a
/// user may leave unread.
const PASSED_ON: usize = 4 * MAX_SEND_BUFFER;

/// How an answer is sent.
#[derive(Clone, Copy)]
pub(super) struct Sending {
    /// Nothing was changed, so that the client may be told to come again.
    pub is_read: bool,
    /// The client says when it takes a body, however short: it opens a window for it (RFC 9113, section 5.2).
    pub may_stall: bool,
}

impl Sending {
    fn keep(self, seat: &Seat, bytes: usize, is_short: bool) -> Result<AnswerMemory, TooMany> {
        match is_short {
            true => seat.keep_for_short_answer(bytes, self.is_read),
            false => seat.keep_for_answer(bytes, self.is_read),
        }
    }
}

impl Gate {
    /// An answer that has an end, with its memory until it is sent. A short one over HTTP/1 needs none: the connection
    /// takes it at once.
    ///
    /// A seat of a level is given back once the answer is made ([`AnswerSeat`]), if there is memory for it. Kubernetes'
    /// requests keep theirs until clients have taken all.
    pub(super) fn held(
        &self,
        response: Response<Body>,
        seat: Option<Arc<Seat>>,
        sending: Sending,
        answers: &OpenAnswers,
    ) -> Response<Body> {
        let bytes = response.body().size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let is_short = bytes.is_some_and(|bytes| bytes <= held_body::PIECE);
        if is_short && (!sending.may_stall || bytes == Some(0)) {
            return response;
        }
        let held = bytes.or_else(|| response.extensions().get::<HeldBytes>().map(|held| held.0)).unwrap_or(PASSED_ON);
        let (seat, memory) = match seat {
            None => (None, None),
            Some(seat) => match sending.keep(&seat, held, is_short) {
                Ok(AnswerMemory::Granted(memory)) if bytes.is_some() => {
                    seat.answer_is_made();
                    (Some(AnswerSeat::until_sent(seat)), Some(memory))
                }
                Ok(AnswerMemory::Granted(memory)) => (Some(AnswerSeat::until_made(seat)), Some(memory)),
                Ok(AnswerMemory::Overdrawn(memory)) => (Some(AnswerSeat::overdrawn(seat)), Some(memory)),
                Err(too_many) => {
                    self.metrics.refused(StatusCode::TOO_MANY_REQUESTS.as_u16());
                    return too_many.to_response();
                }
            },
        };
        response.map(|body| Body::new(HeldBody::new(body, seat, memory, answers)))
    }
}
