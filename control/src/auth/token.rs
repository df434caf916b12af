//! Whose bearer token this is: a join token, or a token of a ServiceAccount.

use jiff::Timestamp;

use super::{
    Identity,
    authorizer::Authorizer,
    bootstrap_token::BootstrapToken,
    stored_facts::{StoredFacts, Unreadable},
};

/// The audience of tokens that are for a server which issues none.
const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// Reads bearer tokens. Cheap to clone.
#[derive(Clone)]
pub struct TokenAuthenticator {
    facts: StoredFacts,
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

    /// Who holds a token that is good now, and for this server; nobody if it is not.
    pub fn identify(&self, token: &str) -> Result<Option<Identity>, Unreadable> {
        let found = self.identify_for(token, &[self.audience().to_owned()])?;
        Ok(match found {
            Ok(found) => Some(found.identity),
            Err(why) => {
                tracing::debug!(why, "a bearer token is not good");
                None
            }
        })
    }

    /// Who holds a token that is good now for one of `audiences`, or what is wrong with it, if that may be told.
    pub fn identify_for(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Result<Identified, Option<String>>, Unreadable> {
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
        let Some(claims) = self.facts.issuer().and_then(|issuer| issuer.read(token)) else { return Ok(Err(None)) };
        let common: Vec<String> = audiences.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        if common.is_empty() {
            return Ok(Err(Some(format!(
                "token audiences {} is invalid for the target audiences {}",
                quoted(&claims.aud),
                quoted(audiences)
            ))));
        }
        let identity = claims.identify(&self.facts.snapshot(), now);
        Ok(identity.map(|identity| Identified { identity, audiences: common }).map_err(Some))
    }
}

/// As Go's `%q` writes a list.
fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(" "))
}
