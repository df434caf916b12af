//! Tokens of ServiceAccounts whose signature was verified a moment ago: a verification costs more than the rest of a
//! request, and clients send the same token with each.
//!
//! Only that is kept. Whether a token is good now, and whom it stands for, is asked anew each time. kube-apiserver keeps
//! its whole answer for ten seconds.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Tokens of each of two generations: one is forgotten after so many others, and before twice as many.
const MOST: usize = 4096;

/// What verified tokens say, by the tokens' SHA-256: the tokens themselves are not kept.
#[derive(Debug, Default)]
pub struct VerifiedTokens(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<[u8; 32], Arc<[u8]>>,
    old: HashMap<[u8; 32], Arc<[u8]>>,
}

impl VerifiedTokens {
    /// What `token` says, if `verify` says so, or has said so.
    pub fn get(&self, token: &str, verify: impl FnOnce() -> Option<Vec<u8>>) -> Option<Arc<[u8]>> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.0.lock().find(&digest) {
            return Some(claims);
        }
        // Not under the lock. What is not good is not kept: anybody can make that up.
        let claims: Arc<[u8]> = verify()?.into();
        self.0.lock().keep(digest, claims.clone());
        Some(claims)
    }
}

impl Generations {
    fn find(&mut self, digest: &[u8; 32]) -> Option<Arc<[u8]>> {
        if let Some(claims) = self.young.get(digest) {
            return Some(claims.clone());
        }
        let claims = self.old.remove(digest)?;
        self.keep(*digest, claims.clone());
        Some(claims)
    }

    fn keep(&mut self, digest: [u8; 32], claims: Arc<[u8]>) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_token_is_verified_once_and_a_bad_one_each_time() {
        let (tokens, times) = (VerifiedTokens::default(), std::cell::Cell::new(0));
        let get = |token: &str, claims: Option<&[u8]>| {
            tokens.get(token, || {
                times.set(times.get() + 1);
                claims.map(<[u8]>::to_vec)
            })
        };
        assert_eq!(get("good", Some(b"a")).as_deref(), Some(&b"a"[..]));
        assert_eq!(get("good", None).as_deref(), Some(&b"a"[..]));
        assert_eq!((get("bad", None), get("bad", None), times.get()), (None, None, 3));
    }

    #[test]
    fn tokens_in_use_stay_and_others_are_forgotten() {
        let tokens = VerifiedTokens::default();
        let claims = || Some(b"a".to_vec());
        for number in 0..3 * MOST {
            assert!(tokens.get(&number.to_string(), claims).is_some());
            assert!(tokens.get("used", || (number == 0).then(claims).flatten()).is_some(), "{number}");
        }
        assert!(tokens.get("1", || None).is_none());
        let kept = tokens.0.lock();
        assert!(kept.young.len() + kept.old.len() <= 2 * MOST);
    }
}
