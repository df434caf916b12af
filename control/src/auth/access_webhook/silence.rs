//! Whether an authorization webhook answers nobody any more.
//!
//! Where all places for questions are taken, only that may have others decide in the webhook's place: else whoever
//! fills the places, with questions that take it long, could skip what it denies. So it is found out by a question of
//! this server's own, which no client can make slow or broken.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// What is known of one webhook. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Silence(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// How often the webhook said anything.
    heard: AtomicU64,
    is_confirmed: AtomicBool,
    is_probing: AtomicBool,
}

/// A question of this server's own that is under way: one at a time. Dropped, it has shown nothing.
#[derive(Debug)]
pub struct Probe {
    of: Silence,
    /// As the question was asked.
    heard: u64,
}

impl Silence {
    /// The webhook said something to somebody, if only that it refuses.
    pub fn ends(&self) {
        self.0.heard.fetch_add(1, Ordering::SeqCst);
        self.0.is_confirmed.store(false, Ordering::SeqCst);
    }

    /// Whether the last question of this server's own was not answered, nor was any since.
    pub fn is_confirmed(&self) -> bool {
        self.0.is_confirmed.load(Ordering::SeqCst)
    }

    /// The right to ask one, unless one is under way.
    pub fn probe(&self) -> Option<Probe> {
        let is_free = !self.0.is_probing.swap(true, Ordering::SeqCst);
        is_free.then(|| Probe { of: self.clone(), heard: self.0.heard.load(Ordering::SeqCst) })
    }
}

impl Probe {
    /// It was not answered: that counts where nobody else was answered meanwhile either.
    pub fn went_unanswered(self) {
        let state = &self.of.0;
        state.is_confirmed.store(true, Ordering::SeqCst);
        // Looked at afterwards: an answer that comes right now is not lost.
        if state.heard.load(Ordering::SeqCst) != self.heard {
            state.is_confirmed.store(false, Ordering::SeqCst);
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.of.0.is_probing.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_a_question_of_our_own_that_nobody_answers_while_nobody_else_is_answered() {
        let silence = Silence::default();
        let probe = silence.probe().unwrap();
        assert!(silence.probe().is_none(), "one at a time");
        silence.ends();
        probe.went_unanswered();
        assert!(!silence.is_confirmed(), "others are answered");
        drop(silence.probe().expect("the first has ended"));
        assert!(!silence.is_confirmed(), "it was not asked to the end");
        silence.probe().unwrap().went_unanswered();
        assert!(silence.is_confirmed());
        silence.probe().expect("to find out when it is over");
        silence.ends();
        assert!(!silence.is_confirmed());
    }
}
