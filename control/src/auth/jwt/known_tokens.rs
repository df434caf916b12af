//! Tokens of other issuers that were good when they were shown last. Whoever shows one again is no stranger: their
//! questions take places that strangers leave ([`Asker::Known`]).
//!
//! Nothing is let in by this: a token is read and verified each time, and one that has expired takes no place at all.
//! One that no key has signed any more is forgotten. Only digests are kept, of a bounded number of tokens.
//!
//! A token has one such place at a time: else who has a single good one could take all of them, and with them those of
//! all others.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::auth::outside::{
    answers::AnswerKey,
    known_questions::KnownQuestions,
    places::{Asker, NoPlace, OutsidePlace, OutsidePlaces},
};

/// The tokens, by their SHA-256. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct KnownTokens(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    good: KnownQuestions,
    /// Those that have a place that strangers leave.
    placed: HashSet<AnswerKey>,
}

/// A place in which a token is compared with keys.
pub struct TokenPlace {
    _place: OutsidePlace,
    _turn: Option<KnownTurn>,
}

/// The one place of a token that is known.
struct KnownTurn {
    of: KnownTokens,
    token: AnswerKey,
}

/// The digest of a token.
#[derive(Clone, Copy, Debug)]
pub struct TokenDigest(AnswerKey);

impl TokenDigest {
    /// Of a token as it was sent.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl KnownTokens {
    /// A place for a token that `asker` shows.
    pub fn place(&self, token: TokenDigest, asker: Asker<'_>, places: &OutsidePlaces) -> Result<TokenPlace, NoPlace> {
        let turn = match asker {
            Asker::Stranger(_) => self.turn(token.0),
            Asker::Known | Asker::Reviewer(_) => None,
        };
        let asker = if turn.is_some() { Asker::Known } else { asker };
        Ok(TokenPlace { _place: places.take(asker)?, _turn: turn })
    }

    fn turn(&self, token: AnswerKey) -> Option<KnownTurn> {
        let Known { good, placed } = &mut *self.0.lock();
        let is_granted = good.contains(&token) && placed.insert(token);
        is_granted.then(|| KnownTurn { of: self.clone(), token })
    }

    /// It let somebody in.
    pub fn was_good(&self, token: TokenDigest) {
        self.0.lock().good.add(token.0);
    }

    /// Nobody has signed it, or it lets nobody in any more.
    pub fn was_bad(&self, token: TokenDigest) {
        self.0.lock().good.forget(&token.0);
    }
}

impl Drop for KnownTurn {
    fn drop(&mut self) {
        self.of.0.lock().placed.remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::outside::places::OutsideLimits;

    #[test]
    fn a_token_that_is_known_has_one_place_beside_those_of_strangers_at_a_time() {
        let limits = OutsideLimits { of_strangers: 2, of_one_address: 1, of_known: 2, of_reviewers: 0 };
        let (places, known) = (OutsidePlaces::new(limits), KnownTokens::default());
        let [jane, joe] = ["jane's", "joe's"].map(TokenDigest::of);
        let place = |token| known.place(token, Asker::Stranger([10, 0, 0, 1].into()), &places);
        known.was_good(jane);
        known.was_good(joe);
        let (first, second) = (place(jane).unwrap(), place(jane).unwrap());
        assert!(place(jane).is_err(), "it has its own and that of its address");
        let other = place(joe).expect("others have theirs");
        drop((first, other));
        assert!(place(jane).is_ok());
        known.was_bad(joe);
        assert!(place(joe).is_err(), "the place of the address is taken");
        drop(second);
        assert!(place(joe).is_ok() && known.0.lock().placed.is_empty());
    }
}
