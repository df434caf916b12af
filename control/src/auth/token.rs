//! Whose bearer token this is. Join tokens are the only ones so far.

use jiff::Timestamp;

use super::{
    Identity,
    authorizer::Authorizer,
    bootstrap_token::BootstrapToken,
    stored_facts::{StoredFacts, Unreadable},
};

/// The audience of tokens that are for this server.
pub const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// Reads bearer tokens. Cheap to clone.
#[derive(Clone)]
pub struct TokenAuthenticator {
    facts: StoredFacts,
}

impl TokenAuthenticator {
    /// Looks up what it needs where `authorizer` does.
    pub fn new(authorizer: &Authorizer) -> Self {
        Self { facts: authorizer.facts().clone() }
    }

    /// Who holds a token that is good now; nobody if it is not.
    pub fn identify(&self, token: &str) -> Result<Option<Identity>, Unreadable> {
        let Ok(token) = token.parse::<BootstrapToken>() else { return Ok(None) };
        let secret = self.facts.secret_of(&token)?;
        Ok(secret.and_then(|secret| token.identity(&secret, Timestamp::now())))
    }
}
