//! Bearer tokens of other issuers: JSON Web Tokens (RFC 7519) that an `AuthenticationConfiguration` lets in.
//!
//! ```text
//!   token ─► `token` what it says ─► whose? ─► `provider` is it signed by them? ─► `mapping` whom does it name?
//!                                                  ▲  `key`                          ▲  `expression`
//!                                    `fetch` discovery and keys, over TLS      claims, rules, CEL
//!                                    `known_tokens` was it good before?
//! ```
//!
//! Each issuer stands alone: one that is away keeps its own tokens from being read, and no others.

pub mod expression;
pub mod fetch;
pub mod key;
pub mod known_tokens;
pub mod mapping;
pub mod provider;
#[cfg(test)]
pub mod tests;
pub mod token;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::future::{join_all, pending};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    expression::ClaimExpressionError,
    fetch::IssuerFetch,
    key::SigningAlgorithm,
    known_tokens::{KnownTokens, TokenDigest},
    mapping::{UserMapping, UserMappingError},
    provider::OidcProvider,
    token::{JwtToken, VerifyError},
};
use super::{
    configuration::authentication::JwtAuthenticatorConfiguration,
    outside::places::{Asker, OutsidePlaces},
};
use crate::{identity::Identity, webhook::Dial};

/// Reads the tokens of all issuers of a configuration, which may be replaced. Cheap to clone.
#[derive(Clone)]
pub struct JwtAuthenticators {
    current: Arc<ArcSwap<JwtIssuers>>,
    replaced: watch::Sender<()>,
    accepted: Arc<[SigningAlgorithm]>,
    dial: Arc<dyn Dial>,
    /// For tokens that several keys may have signed.
    places: OutsidePlaces,
    /// Those of them that were good.
    known: KnownTokens,
}

/// The issuers of one configuration.
pub struct JwtIssuers(Vec<JwtIssuer>);

struct JwtIssuer {
    provider: Arc<OidcProvider>,
    mapping: UserMapping,
}

/// Why a token of an issuer that is known lets nobody in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JwtError {
    /// The keys of the issuer are not known yet.
    #[error("oidc: authenticator not initialized")]
    NotInitialized,
    /// The token is not good.
    #[error("oidc: verify token: {0}")]
    Verify(#[from] VerifyError),
    /// It names nobody, or nobody who is let in.
    #[error(transparent)]
    Mapping(#[from] UserMappingError),
}

impl JwtError {
    /// Whether another answer is to be expected once the issuer can be asked.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::NotInitialized | Self::Verify(VerifyError::Keys(_) | VerifyError::NoPlace(_)))
    }
}

impl JwtAuthenticators {
    /// Without any issuer. Tokens are taken that are signed in one of the ways `accepted`; documents are fetched
    /// through `dial`.
    pub fn new(accepted: Vec<SigningAlgorithm>, dial: Arc<dyn Dial>) -> Self {
        let current = Arc::new(ArcSwap::from_pointee(JwtIssuers(Vec::new())));
        let (replaced, places) = (watch::Sender::new(()), OutsidePlaces::default());
        Self { current, replaced, accepted: accepted.into(), dial, places, known: KnownTokens::default() }
    }

    /// With other limits of tokens at a time.
    #[cfg(test)]
    pub fn limited_to(self, places: OutsidePlaces) -> Self {
        Self { places, ..self }
    }

    /// Whether there is any issuer.
    pub fn are_any(&self) -> bool {
        !self.current.load().0.is_empty()
    }

    /// The issuers of a configuration that holds together. Those that are known stay with their keys.
    pub fn prepare(&self, configuration: &[JwtAuthenticatorConfiguration]) -> Result<JwtIssuers, ClaimExpressionError> {
        let known = self.current.load();
        let issuers = configuration.iter().map(|one| {
            let same = known.0.iter().find(|known| *known.provider.configuration() == one.issuer);
            let provider = same.map_or_else(
                || {
                    let fetch = IssuerFetch::new(&one.issuer.certificate_authority, self.dial.clone());
                    Arc::new(OidcProvider::new(one.issuer.clone(), fetch))
                },
                |known| known.provider.clone(),
            );
            Ok(JwtIssuer { provider, mapping: UserMapping::compile(one)? })
        });
        Ok(JwtIssuers(issuers.collect::<Result<_, _>>()?))
    }

    /// Takes these issuers' tokens from now on, and no others.
    pub fn replace(&self, issuers: JwtIssuers) {
        self.current.store(Arc::new(issuers));
        self.replaced.send_replace(());
    }

    /// Keeps the keys of all issuers up to date, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut replaced = self.replaced.subscribe();
        loop {
            replaced.mark_unchanged();
            let providers: Vec<_> = self.current.load().0.iter().map(|issuer| issuer.provider.clone()).collect();
            let kept = async {
                join_all(providers.into_iter().map(OidcProvider::keep_fresh)).await;
                // Of no issuers.
                pending::<()>().await;
            };
            tokio::select! {
                () = kept => {}
                _ = replaced.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Whom a token names that is good now and that `asker` shows; `None` where no issuer that is known issued it.
    pub async fn authenticate(
        &self,
        text: &str,
        now: Timestamp,
        asker: Asker<'_>,
    ) -> Option<Result<Identity, JwtError>> {
        let issuers = self.current.load_full();
        if issuers.0.is_empty() {
            return None;
        }
        let url = token::untrusted_issuer(text)?;
        let issuer = issuers.0.iter().find(|issuer| issuer.provider.configuration().url == url)?;
        Some(issuer.authenticate(text, now, asker, self).await)
    }
}

impl JwtIssuers {
    /// Waits until the keys of all are known; `false` if that takes longer than `at_most`.
    pub async fn are_ready(&self, at_most: Duration) -> bool {
        let ready = join_all(self.0.iter().map(|issuer| issuer.provider.make_ready()));
        tokio::time::timeout(at_most, ready).await.is_ok()
    }

    /// Those whose keys are not known.
    pub fn not_ready(&self) -> Vec<&str> {
        let providers = self.0.iter().map(|issuer| &issuer.provider);
        providers.filter(|provider| !provider.is_ready()).map(|provider| &*provider.configuration().url).collect()
    }
}

impl JwtIssuer {
    /// What is cheap to see is looked at first: a token must be good in all else before keys are fetched for it. One
    /// that has expired is bad whoever signed it, so that is told though the keys are not known. Kubernetes tells then
    /// only that the issuer is not ready; here that would let what is under way outlive its token.
    async fn authenticate(
        &self,
        text: &str,
        now: Timestamp,
        asker: Asker<'_>,
        of: &JwtAuthenticators,
    ) -> Result<Identity, JwtError> {
        let token = JwtToken::read(text)?;
        token.check(&self.provider.configuration().audiences, now)?;
        let algorithm = token.accepted_algorithm(&of.accepted)?;
        let digest = OnceLock::new();
        let digest_of_text = || *digest.get_or_init(|| TokenDigest::of(text));
        let place = || of.known.place(digest_of_text(), asker, &of.places);
        let verified = self.provider.verify(&token, algorithm, &place).await.ok_or(JwtError::NotInitialized)?;
        if let (Err(VerifyError::Signature), Some(digest)) = (&verified, digest.get()) {
            of.known.was_bad(*digest);
        }
        verified?;
        let user = self.mapping.user(&token.claims);
        if let (Err(_), Some(digest)) = (&user, digest.get()) {
            of.known.was_bad(*digest);
        }
        let user = user?;
        // One that names its key takes a place only where several have the same name.
        if token.key_id.is_empty() || digest.get().is_some() {
            of.known.was_good(digest_of_text());
        }
        Ok(user)
    }
}
