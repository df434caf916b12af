//! Tokens of ServiceAccounts whose signature was verified a moment ago: a verification costs more than the rest of a
//! request, and clients send the same token with each.
//!
//! Only that is kept. Whether a token is good now, and whom it stands for, is asked anew each time. kube-apiserver
//! keeps its whole answer for ten seconds. What one token says may be long: nothing bounds the audiences that somebody
//! asks for, here or in Kubernetes. So bytes are counted, and a long token is verified each time.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Bytes of each of two generations: what a token says is forgotten after so many of others, and before twice as many.
/// Those of pods say less than a kilobyte. Chosen, not measured.
const MOST_BYTES: usize = 4 << 20;
/// Bytes of what one token says; of others nothing is kept.
const MOST_BYTES_OF_ONE: usize = 8 << 10;
/// What is kept beside them, about: the digest, and its part of the table.
const OVERHEAD: usize = 128;

/// What verified tokens say, by the tokens' SHA-256: the tokens themselves are not kept.
#[derive(Debug, Default)]
pub struct VerifiedTokens(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<[u8; 32], Arc<[u8]>>,
    old: HashMap<[u8; 32], Arc<[u8]>>,
    /// Of the young ones.
    bytes: usize,
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
        if claims.len() > MOST_BYTES_OF_ONE {
            return;
        }
        let bytes = claims.len().saturating_add(OVERHEAD);
        if self.bytes.saturating_add(bytes) > MOST_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        // Two may have verified the same.
        if self.young.insert(digest, claims).is_none() {
            self.bytes = self.bytes.saturating_add(bytes);
        }
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
        let claims = || Some(vec![b'a'; MOST_BYTES_OF_ONE]);
        let most = MOST_BYTES / MOST_BYTES_OF_ONE;
        for number in 0..3 * most {
            assert!(tokens.get(&number.to_string(), claims).is_some());
            assert!(tokens.get("used", || (number == 0).then(claims).flatten()).is_some(), "{number}");
        }
        assert!(tokens.get("1", || None).is_none());
        let kept = tokens.0.lock();
        let bytes: usize = kept.young.values().chain(kept.old.values()).map(|claims| claims.len()).sum();
        assert!(bytes <= 2 * MOST_BYTES && kept.bytes <= MOST_BYTES, "{bytes}");
    }

    #[test]
    fn what_a_long_token_says_is_not_kept() {
        let tokens = VerifiedTokens::default();
        for (bytes, is_kept) in [(MOST_BYTES_OF_ONE, true), (MOST_BYTES_OF_ONE + 1, false), (2 << 20, false)] {
            let token = bytes.to_string();
            assert_eq!(tokens.get(&token, || Some(vec![b'a'; bytes])).map(|claims| claims.len()), Some(bytes));
            assert_eq!(tokens.get(&token, || None).is_some(), is_kept, "{bytes}");
        }
    }
}
