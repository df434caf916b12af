//! Credentials that hold on both servers, and such as hold on none: client certificates and tokens of ServiceAccounts.

use std::{path::Path, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use fairlead_control::auth::pki::{Authority, CertificateSubject, Issued, TokenKey, Usage};
use serde_json::Value;
use std::time::SystemTime;

use crate::kit::Result;

/// What signs credentials: that which both servers trust, and strangers'.
pub struct Credentials {
    authority: Authority,
    token_key: TokenKey,
    other_authority: Authority,
    other_token_key: TokenKey,
}

/// What is wrong with a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    None,
    OtherAuthority,
    Expired,
    NotYetValid,
    ForServers,
}

/// What is wrong with a token, beside what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFlaw {
    None,
    OtherKey,
    /// One byte of the signature is another.
    BrokenSignature,
    /// `alg: none`, and no signature.
    Unsigned,
    /// Two parts instead of three.
    Cut,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Credentials {
    /// Those of a server that keeps its keys in `dir`.
    pub fn load(dir: &Path) -> Result<Self> {
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).map_err(|error| format!("{name}: {error}"));
        Ok(Self {
            authority: Authority::load(&read("ca.crt")?, &read("ca.key")?)?,
            token_key: TokenKey::load(&read("sa.key")?)?,
            other_authority: Authority::create(SystemTime::now().into())?.0,
            other_token_key: TokenKey::create()?.0,
        })
    }

    /// A client certificate.
    pub fn certificate(&self, user: &str, group: Option<&str>, flaw: Flaw) -> Result<Issued> {
        let subject = CertificateSubject {
            common_name: user.into(),
            organization: group.map(Into::into),
            ..CertificateSubject::default()
        };
        let now = SystemTime::now();
        let from = match flaw {
            Flaw::Expired => now - 3 * HOUR,
            Flaw::NotYetValid => now + 3 * HOUR,
            _ => now,
        };
        let authority = if flaw == Flaw::OtherAuthority { &self.other_authority } else { &self.authority };
        let usage = if flaw == Flaw::ForServers { Usage::Server } else { Usage::Client };
        Ok(authority.issue(&subject, usage, HOUR, from.into())?)
    }

    /// A token like `token`, saying what `edit` makes of it.
    pub fn forged(&self, token: &str, flaw: TokenFlaw, edit: fn(&mut Value)) -> Result<String> {
        let claims = token.split('.').nth(1).ok_or("a token without claims")?;
        let mut claims: Value = serde_json::from_slice(&BASE64.decode(claims)?)?;
        edit(&mut claims);
        let key = if flaw == TokenFlaw::OtherKey { &self.other_token_key } else { &self.token_key };
        let signed = key.sign(&claims.to_string())?;
        let parts: Vec<&str> = signed.split('.').collect();
        Ok(match flaw {
            TokenFlaw::None | TokenFlaw::OtherKey => signed,
            TokenFlaw::BrokenSignature => {
                let mut signature = BASE64.decode(parts[2])?;
                signature[7] ^= 1;
                format!("{}.{}.{}", parts[0], parts[1], BASE64.encode(signature))
            }
            TokenFlaw::Unsigned => format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), parts[1]),
            TokenFlaw::Cut => format!("{}.{}", parts[0], parts[1]),
        })
    }
}
