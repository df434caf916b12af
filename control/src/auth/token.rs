//! Whose bearer token this is: a join token, or a token of a ServiceAccount.

use std::borrow::Cow;

use http::HeaderValue;
use jiff::Timestamp;

use super::{
    Identity,
    account_token::{AccountTokenError, OwnClaims},
    authorizer::Authorizer,
    bootstrap_token::BootstrapToken,
    secret_token::SecretTokenError,
    stored_facts::{StoredFacts, Unreadable},
};

/// The audience of this server where it has no issuer, whose URL is its audience otherwise.
const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// The token of an `Authorization` header; nothing where the header shows another credential, or none. Who shows
/// nothing else is anonymous then. Source: `bearertoken` of `k8s.io/apiserver`.
pub fn bearer_token(authorization: &HeaderValue) -> Option<Cow<'_, str>> {
    match String::from_utf8_lossy(authorization.as_bytes()) {
        Cow::Borrowed(text) => second_word(text).map(Cow::Borrowed),
        Cow::Owned(text) => second_word(&text).map(|token| Cow::Owned(token.to_owned())),
    }
}

/// What follows `Bearer`.
fn second_word(text: &str) -> Option<&str> {
    let mut words = text.trim().splitn(3, ' ');
    let scheme = words.next().filter(|scheme| scheme.eq_ignore_ascii_case("bearer"));
    scheme.and(words.next()).filter(|token| !token.is_empty())
}

/// Reads bearer tokens. Cheap to clone.
#[derive(Clone)]
pub struct TokenAuthenticator {
    facts: StoredFacts,
}

/// What is wrong with a token of a ServiceAccount, in the words of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// It is for none of those who were asked about.
    #[error("token audiences {} is invalid for the target audiences {}", quoted(.of_token), quoted(.asked))]
    Audiences {
        /// Those that it is for.
        of_token: Vec<String>,
        /// Those that were asked about.
        asked: Vec<String>,
    },
    /// It was issued for a time, and is not good now.
    #[error(transparent)]
    Issued(#[from] AccountTokenError),
    /// It is kept in a Secret, and is not good now.
    #[error(transparent)]
    Kept(#[from] SecretTokenError),
}

/// What a token that is good says.
#[derive(Debug)]
pub struct Identified {
    /// Who holds it.
    pub identity: Identity,
    /// For which of those who were asked about it is.
    pub audiences: Vec<String>,
}

impl TokenAuthenticator {
    /// Looks up what it needs where `authorizer` does.
    pub fn new(authorizer: &Authorizer) -> Self {
        Self { facts: authorizer.facts().clone() }
    }

    /// The audience of tokens that are for this server.
    pub fn audience(&self) -> &str {
        self.facts.issuer().map_or(API_AUDIENCE, |issuer| issuer.url())
    }

    /// Who holds a token that is good now, and for this server, or what is wrong with it, if that may be told. Nothing
    /// is told of a token that this server has not issued.
    pub fn identify_own(&self, token: &str) -> Result<Result<Identified, Option<TokenRefusal>>, Unreadable> {
        self.identify_for(token, &[self.audience().to_owned()])
    }

    /// Who holds a token that is good now for one of `audiences`, or what is wrong with it, if that may be told.
    pub fn identify_for(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Result<Identified, Option<TokenRefusal>>, Unreadable> {
        let now = Timestamp::now();
        if let Ok(token) = token.parse::<BootstrapToken>() {
            let secret = self.facts.secret_of(&token)?;
            let identity = secret.and_then(|secret| token.identity(&secret, now));
            let ours = audiences.iter().any(|audience| audience == self.audience());
            let identified = identity.filter(|_| ours).map(|identity| {
                // It names no audience, so it is for this server alone.
                Identified { identity, audiences: vec![self.audience().to_owned()] }
            });
            return Ok(identified.ok_or(None));
        }
        let Some(issuer) = self.facts.issuer() else { return Ok(Err(None)) };
        let identified = match issuer.read(token) {
            None => return Ok(Err(None)),
            Some(OwnClaims::Issued(claims)) => common(audiences, &claims.aud).and_then(|audiences| {
                let identity = claims.identify(&self.facts.snapshot(), now)?;
                Ok(Identified { identity, audiences })
            }),
            // It names no audience either.
            Some(OwnClaims::Kept(claims)) => common(audiences, &[self.audience().to_owned()]).and_then(|audiences| {
                let judgement = claims.judge(token, &self.facts.snapshot(), now);
                if let Some(secret) = judgement.first_today {
                    self.facts.used_secrets().add(secret);
                }
                Ok(Identified { identity: judgement.holder?, audiences })
            }),
        };
        Ok(identified.map_err(Some))
    }
}

/// Those of the audiences asked about that a token is for; an error where there is none.
fn common(asked: &[String], of_token: &[String]) -> Result<Vec<String>, TokenRefusal> {
    let common: Vec<String> = asked.iter().filter(|audience| of_token.contains(audience)).cloned().collect();
    if common.is_empty() {
        return Err(TokenRefusal::Audiences { of_token: of_token.to_vec(), asked: asked.to_vec() });
    }
    Ok(common)
}

/// As Go's `%q` writes a list.
fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_shows_a_token_or_nothing() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            (" Bearer abc ", Some("abc")),
            ("Bearer abc def", Some("abc")),
            ("Bearer  abc", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(bearer_token(&HeaderValue::from_static(header)).as_deref(), token, "{header:?}");
        }
        let odd = HeaderValue::from_bytes(b"Bearer \xff").unwrap();
        assert!(bearer_token(&odd).is_some(), "it is a token, though no good one");
    }
}
