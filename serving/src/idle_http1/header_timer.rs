//! Tells when hyper begins to wait for the header of a request.
//!
//! hyper says nothing of its state. But it limits how long a header may take, and asks for that timer whenever it
//! begins to wait for one: after all of the message before was read, its body included, and its answer written. It has
//! no other use for a timer on the server's side of HTTP/1.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;

use super::Seen;

/// Tokio's timer, whose use is noted.
pub(super) struct HeaderTimer(pub(super) Arc<Seen>);

impl Timer for HeaderTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.0.awaits_header();
        TokioTimer::new().sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.0.awaits_header();
        TokioTimer::new().sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        TokioTimer::new().now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        self.0.awaits_header();
        TokioTimer::new().reset(sleep, deadline);
    }
}
