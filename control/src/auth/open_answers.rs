//! The answers of one connection that are being sent, each for a limited time.
//!
//! A client that opens no window never has the server poll a body, so the time is not kept by polling it. One timer
//! does for all answers of a connection, and runs beside it: they have the same time, so the oldest is the first to be
//! late. It is set anew only when it is over, however many answers were sent meanwhile. The same timer looks at those
//! that are made while they are sent: a slow client must not keep their seats.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::deadline::REQUEST_TIMEOUT;

/// How long an answer may take to be sent.
pub const LONGEST: Duration = REQUEST_TIMEOUT;

/// What can be broken off.
pub trait CutOff: Send + Sync {
    /// Its time is over.
    fn cut_off(&self);

    /// A look at an answer that is made while it is sent; when the next one is due, if any is.
    fn check(&self, now: Instant) -> Option<Instant>;
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
    /// Those that are looked at before, by when and their numbers.
    checks: BTreeMap<(Instant, u64), Weak<dyn CutOff>>,
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

    /// An answer is sent from now on, and looked at after `first_check`.
    pub fn begin(&self, answer: Weak<dyn CutOff>, first_check: Option<Duration>) -> OpenAnswer {
        let now = Instant::now();
        let until = now.checked_add(self.0.longest).unwrap_or(now);
        let mut open = self.0.open.lock();
        let id = open.next;
        open.next = open.next.wrapping_add(1);
        let before = open.first();
        if let Some(check) = first_check.and_then(|after| now.checked_add(after)) {
            open.checks.insert((check, id), answer.clone());
        }
        open.by_age.insert(id, (until, answer));
        let is_earlier = before.is_none_or(|before| open.first().is_some_and(|first| first < before));
        drop(open);
        if is_earlier {
            self.0.begun.notify_one();
        }
        OpenAnswer { id, of: self.clone() }
    }

    /// Cuts off each answer whose time is over, for as long as it is polled.
    pub async fn cut_late(&self) -> Infallible {
        loop {
            let first = self.0.open.lock().first();
            let now = Instant::now();
            match first {
                None => self.0.begun.notified().await,
                Some(at) if at > now => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.0.begun.notified() => {}
                },
                Some(_) => self.look(now),
            }
        }
    }

    /// Does the first of what is due.
    fn look(&self, now: Instant) {
        let mut open = self.0.open.lock();
        if open.by_age.first_key_value().is_some_and(|(_, (until, _))| *until <= now) {
            let first = open.by_age.pop_first();
            // To cut it off may take a while.
            drop(open);
            if let Some(answer) = first.and_then(|(_, (_, answer))| answer.upgrade()) {
                answer.cut_off();
            }
        } else if let Some(((_, id), answer)) = open.checks.pop_first() {
            drop(open);
            let next = answer.upgrade().and_then(|answer| answer.check(now));
            let mut open = self.0.open.lock();
            // It may have been sent meanwhile.
            if let Some(next) = next.filter(|_| open.by_age.contains_key(&id)) {
                open.checks.insert((next, id), answer);
            }
        }
    }
}

impl Open {
    /// When there is something to be done first.
    fn first(&self) -> Option<Instant> {
        let check = self.checks.first_key_value().map(|((at, _), _)| *at);
        let late = self.by_age.first_key_value().map(|(_, (until, _))| *until);
        check.into_iter().chain(late).min()
    }
}

impl Drop for OpenAnswer {
    fn drop(&mut self) {
        let mut open = self.of.0.open.lock();
        open.by_age.remove(&self.id);
        open.checks.retain(|(_, id), _| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Answer(AtomicBool, AtomicUsize);

    impl CutOff for Answer {
        fn cut_off(&self) {
            self.0.store(true, Ordering::Relaxed);
        }

        fn check(&self, now: Instant) -> Option<Instant> {
            let checks = self.1.fetch_add(1, Ordering::Relaxed);
            (checks < 2).then_some(now)
        }
    }

    fn begin(answers: &OpenAnswers) -> (Arc<Answer>, OpenAnswer) {
        let answer = Arc::<Answer>::default();
        let weak: Weak<Answer> = Arc::downgrade(&answer);
        (answer, answers.begin(weak, None))
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

    #[tokio::test]
    async fn those_that_are_made_while_they_are_sent_are_looked_at_as_long_as_they_want() {
        let answers = OpenAnswers::lasting(LONGEST);
        let run = answers.clone();
        let cutting = tokio::spawn(async move { run.cut_late().await });
        // The timer is set for it already.
        let _late = begin(&answers);
        tokio::task::yield_now().await;
        let answer = Arc::<Answer>::default();
        let weak: Weak<Answer> = Arc::downgrade(&answer);
        let open = answers.begin(weak.clone(), Some(Duration::from_millis(1)));
        let is_done = async {
            while answer.1.load(Ordering::Relaxed) < 3 || !answers.0.open.lock().checks.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), is_done).await.expect("it is looked at in time");
        assert!(!answer.0.load(Ordering::Relaxed));
        drop(open);
        drop(answers.begin(weak, Some(LONGEST)));
        assert!(answers.0.open.lock().checks.is_empty(), "one that is sent is forgotten");
        cutting.abort();
    }
}
