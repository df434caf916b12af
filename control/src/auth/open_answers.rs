//! The answers of one connection that are being sent, each for a limited time.
//!
//! A client that opens no window never has the server poll a body, so the time is not kept by polling it. One timer
//! does for all answers of a connection, and runs beside it: they have the same time, so the oldest is the first to be
//! late. It is set anew only when it is over, however many answers were sent meanwhile.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// How long an answer may take to be sent. Source: `--request-timeout`.
pub const LONGEST: Duration = Duration::from_secs(60);

/// What can be broken off.
pub trait CutOff: Send + Sync {
    /// Its time is over.
    fn cut_off(&self);
}

/// The answers of a connection: an extension of its requests. Clones share them.
#[derive(Clone)]
pub struct OpenAnswers(Arc<Answers>);

struct Answers {
    longest: Duration,
    open: Mutex<Open>,
    /// Told when there is one again.
    begun: Notify,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// The oldest first, with the time until which each may be sent.
    by_age: BTreeMap<u64, (Instant, Weak<dyn CutOff>)>,
}

/// An answer that is being sent. Dropped, it is sent or given up.
pub struct OpenAnswer {
    id: u64,
    of: OpenAnswers,
}

impl Default for OpenAnswers {
    fn default() -> Self {
        Self::lasting(LONGEST)
    }
}

impl OpenAnswers {
    /// With another time for each.
    pub fn lasting(longest: Duration) -> Self {
        Self(Arc::new(Answers { longest, open: Mutex::default(), begun: Notify::new() }))
    }

    /// An answer is sent from now on.
    pub fn begin(&self, answer: Weak<dyn CutOff>) -> OpenAnswer {
        let now = Instant::now();
        let until = now.checked_add(self.0.longest).unwrap_or(now);
        let mut open = self.0.open.lock();
        let id = open.next;
        open.next = open.next.wrapping_add(1);
        let is_first = open.by_age.is_empty();
        open.by_age.insert(id, (until, answer));
        drop(open);
        if is_first {
            self.0.begun.notify_one();
        }
        OpenAnswer { id, of: self.clone() }
    }

    /// Cuts off each answer whose time is over, for as long as it is polled.
    pub async fn cut_late(&self) -> Infallible {
        loop {
            let first = self.0.open.lock().by_age.first_key_value().map(|(_, (until, _))| *until);
            match first {
                None => self.0.begun.notified().await,
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                Some(_) => self.cut_first(),
            }
        }
    }

    fn cut_first(&self) {
        let first = self.0.open.lock().by_age.pop_first();
        if let Some(answer) = first.and_then(|(_, (_, answer))| answer.upgrade()) {
            answer.cut_off();
        }
    }
}

impl Drop for OpenAnswer {
    fn drop(&mut self) {
        self.of.0.open.lock().by_age.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct Answer(AtomicBool);

    impl CutOff for Answer {
        fn cut_off(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn begin(answers: &OpenAnswers) -> (Arc<Answer>, OpenAnswer) {
        let answer = Arc::<Answer>::default();
        let weak: Weak<Answer> = Arc::downgrade(&answer);
        (answer, answers.begin(weak))
    }

    #[tokio::test]
    async fn those_that_are_late_are_cut_off_and_those_that_were_sent_are_forgotten() {
        let answers = OpenAnswers::lasting(Duration::from_millis(50));
        let run = answers.clone();
        let cutting = tokio::spawn(async move { run.cut_late().await });
        // More than once: the timer is set again.
        for _ in 0..2 {
            let ((sent, open), (late, _open)) = (begin(&answers), begin(&answers));
            drop(open);
            let is_cut = async {
                while !late.0.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), is_cut).await.expect("it is cut off in time");
            assert!(!sent.0.load(Ordering::Relaxed));
            assert!(answers.0.open.lock().by_age.is_empty());
        }
        cutting.abort();
    }
}
