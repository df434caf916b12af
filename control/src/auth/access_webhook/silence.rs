//! Whether an authorization webhook answers nobody any more.
//!
//! Where all places for questions are taken, only that may have others decide in the webhook's place: else whoever
//! fills the places, with questions that take it long, could skip what it denies. So it is found out by a question of
//! this server's own, which no client can make slow or broken.

use std::sync::Arc;

use parking_lot::Mutex;

/// What is known of one webhook. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Silence(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It answers, for all that is known.
    #[default]
    NotKnown,
    /// A question of this server's own is under way, and nobody was answered meanwhile.
    Probing { was_confirmed: bool },
    /// One is under way, and somebody was answered.
    ProbingHeard,
    /// The last one was not answered, nor was anybody since.
    Confirmed,
}

/// A question of this server's own that is under way: one at a time. Dropped, it has shown nothing.
#[derive(Debug)]
pub struct Probe(Silence);

impl Silence {
    /// The webhook said something to somebody, if only that it refuses.
    pub fn ends(&self) {
        let mut state = self.0.lock();
        *state = match *state {
            State::NotKnown | State::Confirmed => State::NotKnown,
            State::Probing { .. } | State::ProbingHeard => State::ProbingHeard,
        };
    }

    /// Whether the last question of this server's own was not answered, nor was any since.
    pub fn is_confirmed(&self) -> bool {
        matches!(*self.0.lock(), State::Confirmed | State::Probing { was_confirmed: true })
    }

    /// The right to ask one, unless one is under way.
    pub fn probe(&self) -> Option<Probe> {
        let mut state = self.0.lock();
        let was_confirmed = match *state {
            State::NotKnown => false,
            State::Confirmed => true,
            State::Probing { .. } | State::ProbingHeard => return None,
        };
        *state = State::Probing { was_confirmed };
        Some(Probe(self.clone()))
    }
}

impl Probe {
    /// It was not answered: that counts where nobody else was answered meanwhile either.
    pub fn went_unanswered(self) {
        let mut state = self.0.0.lock();
        if let State::Probing { .. } = *state {
            *state = State::Probing { was_confirmed: true };
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        *state = match *state {
            State::Probing { was_confirmed: true } => State::Confirmed,
            _ => State::NotKnown,
        };
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
        let probe = silence.probe().expect("to find out when it is over");
        assert!(silence.is_confirmed(), "it is over once somebody is answered");
        drop(probe);
        assert!(silence.is_confirmed(), "it was not asked to the end");
        silence.ends();
        assert!(!silence.is_confirmed());
    }
}
