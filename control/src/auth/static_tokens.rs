//! Tokens that stand in a file (`--token-auth-file`): lines of `token,user,uid,"group1,group2"`. The file is read once.
//!
//! Source: `k8s.io/apiserver/pkg/authentication/token/tokenfile`.

use std::{collections::HashMap, fs, io, path::Path};

use rand::RngExt;
use ring::hmac;

use crate::identity::Identity;

/// Who holds which token. The tokens themselves are not kept: a digest tells whether one is known, in a time that does
/// not depend on how much of it is right.
pub struct StaticTokens {
    secret: hmac::Key,
    by_digest: HashMap<[u8; 32], Identity>,
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StaticTokensError {
    /// It cannot be read.
    #[error("cannot read the token file {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A line has too few columns.
    #[error(
        "token file '{path}' must have at least 3 columns (token, user name, user uid), found {found} in record \
         {record}"
    )]
    Columns {
        /// The file.
        path: String,
        /// How many there are.
        found: usize,
        /// Counted from 1.
        record: usize,
    },
    /// A quote is open at the end, or stands within a text.
    #[error("token file '{path}': a quote is out of place")]
    Quote {
        /// The file.
        path: String,
    },
}

impl StaticTokens {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, StaticTokensError> {
        let shown = || path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| StaticTokensError::Read { path: shown(), source })?;
        let secret: [u8; 32] = rand::rng().random();
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let mut by_digest = HashMap::new();
        let records = records(&text).ok_or_else(|| StaticTokensError::Quote { path: shown() })?;
        for (at, record) in records.into_iter().enumerate() {
            let number = at.saturating_add(1);
            let [token, user, uid, more @ ..] = &record[..] else {
                return Err(StaticTokensError::Columns { path: shown(), found: record.len(), record: number });
            };
            if token.is_empty() {
                tracing::warn!(path = %path.display(), record = number, "empty token has been found in token file");
                continue;
            }
            let groups = more.first().filter(|groups| !groups.is_empty());
            let groups = groups.map(|groups| groups.split(',').map(str::to_owned).collect()).unwrap_or_default();
            let identity = Identity { name: user.clone(), uid: uid.clone(), groups, ..Identity::default() };
            if by_digest.insert(digest(&secret, token), identity).is_some() {
                tracing::warn!(path = %path.display(), record = number, "duplicate token has been found in token file");
            }
        }
        Ok(Self { secret, by_digest })
    }

    /// Who holds the token, without the group of all users.
    pub fn identify(&self, token: &str) -> Option<&Identity> {
        self.by_digest.get(&digest(&self.secret, token))
    }
}

fn digest(secret: &hmac::Key, token: &str) -> [u8; 32] {
    hmac::sign(secret, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The records of comma-separated values (RFC 4180); empty lines are none. `None` if a quote is out of place.
fn records(text: &str) -> Option<Vec<Vec<String>>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    let (mut is_quoted, mut was_quoted) = (false, false);
    while let Some(c) = chars.next() {
        match (c, is_quoted) {
            ('"', true) if chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            ('"', true) => is_quoted = false,
            (c, true) => field.push(c),
            ('"', false) if field.is_empty() && !was_quoted => (is_quoted, was_quoted) = (true, true),
            ('"', false) => return None,
            (',', false) => {
                record.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            ('\r', false) if chars.peek() == Some(&'\n') => {}
            ('\n', false) => {
                if !record.is_empty() || !field.is_empty() || was_quoted {
                    record.push(std::mem::take(&mut field));
                    records.push(std::mem::take(&mut record));
                }
                was_quoted = false;
            }
            (_, false) if was_quoted => return None,
            (c, false) => field.push(c),
        }
    }
    if is_quoted {
        return None;
    }
    if !record.is_empty() || !field.is_empty() || was_quoted {
        record.push(field);
        records.push(record);
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_file_are_users() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.csv");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            StaticTokens::read(&path)
        };
        let tokens = read("t1,jane,7,\"dev,ops\"\r\n\nt2,joe,8\n,nobody,9\nt3,\"a \"\"b\"\"\",10,dev").unwrap();
        let of = |token: &str| tokens.identify(token).cloned();
        let jane = of("t1").unwrap();
        assert_eq!((&*jane.name, &*jane.uid, jane.groups), ("jane", "7", vec!["dev".to_owned(), "ops".into()]));
        assert_eq!(of("t2").unwrap().groups, Vec::<String>::new());
        assert_eq!((of("t3").unwrap().name, of(""), of("t")), ("a \"b\"".to_owned(), None, None));
        let why = |text: &str| read(text).err().unwrap().to_string();
        assert!(why("a,b").contains("must have at least 3 columns (token, user name, user uid), found 2 in record 1"));
        for wrong in ["a,\"b,c", "a,b\"c,d", "a,\"b\"c,d"] {
            assert!(why(wrong).contains("a quote is out of place"), "{wrong}");
        }
    }
}
