//! Tokens of other issuers that were good when they were shown last. Whoever shows one again is no stranger: their
//! questions take places that strangers leave ([`Asker::Known`]).
//!
//! Nothing is let in by this: a token is read and verified each time, and one that has expired takes no place at all.
//! One that no key has signed any more is forgotten. Only digests are kept, of a bounded number of tokens.

use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::auth::outside::{answers::AnswerKey, known_questions::KnownQuestions, places::Asker};

/// The tokens, by their SHA-256. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct KnownTokens(Arc<Mutex<KnownQuestions>>);

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
    /// Who asks, now that they show this token.
    pub fn asker<'a>(&self, token: TokenDigest, asker: Asker<'a>) -> Asker<'a> {
        match asker {
            Asker::Stranger(_) if self.0.lock().contains(&token.0) => Asker::Known,
            asker => asker,
        }
    }

    /// It let somebody in.
    pub fn was_good(&self, token: TokenDigest) {
        self.0.lock().add(token.0);
    }

    /// Nobody has signed it.
    pub fn was_bad(&self, token: TokenDigest) {
        self.0.lock().forget(&token.0);
    }
}
