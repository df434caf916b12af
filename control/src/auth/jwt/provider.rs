//! The keys of one issuer: found by its discovery document, kept, and fetched again now and then.
//!
//! Nobody waits for an issuer that is away: its keys are fetched in the background, and those that are known stay until
//! there are others. Only a token that none of them has signed makes somebody wait, at most once in a while, for it may
//! be signed by a new key.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    fetch::{FetchError, IssuerFetch},
    key::{SigningAlgorithm, VerificationKey},
    known_tokens::TokenPlace,
    token::{JwtToken, VerifyError},
};
use crate::auth::{configuration::authentication::IssuerConfiguration, outside::places::NoPlace};

/// How long after a failure the first keys are tried again. Source: `oidc.go`.
const RETRY: Duration = Duration::from_secs(10);
/// How often keys are fetched that nobody asks for: one that the issuer has withdrawn is not good for ever. Kubernetes
/// fetches only for tokens that no known key has signed.
const REFRESH: Duration = Duration::from_secs(600);
/// How often tokens may have keys fetched: anybody can make up one that no key has signed.
const FETCHED_FOR_TOKENS_EVERY: Duration = Duration::from_secs(10);

/// How many keys of an issuer are used, the first ones: each may be tried for a token that names none. Issuers that are
/// known have a few. Kubernetes has no limit. Chosen, not measured.
const MOST_KEYS: usize = 64;

/// Why an issuer has no keys for the moment.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProviderError {
    /// Its discovery document cannot be fetched.
    #[error("discovery failed: {0}")]
    Discovery(FetchError),
    /// The document is another's.
    #[error("oidc: issuer did not match the issuer returned by provider, expected {expected:?} got {found:?}")]
    Issuer {
        /// As it was configured.
        expected: String,
        /// As the document says.
        found: String,
    },
    /// The document names no keys.
    #[error("provider did not return JWKS URL")]
    NoKeys,
    /// The keys cannot be fetched.
    #[error("oidc: get keys failed {0}")]
    Keys(FetchError),
    /// The task that fetched them ended.
    #[error("the keys could not be fetched to the end")]
    Ended,
}

/// One issuer, and its keys.
pub struct OidcProvider {
    configuration: IssuerConfiguration,
    fetch: IssuerFetch,
    keys: ArcSwapOption<Vec<VerificationKey>>,
    fetching: Mutex<Fetching>,
}

type SharedFetch = Shared<BoxFuture<'static, Result<(), ProviderError>>>;

#[derive(Default)]
struct Fetching {
    /// The last one, which may have ended.
    last: Option<SharedFetch>,
    /// When the last one for a token began.
    for_token: Option<Instant>,
}

impl OidcProvider {
    /// Of an issuer, from which nothing is fetched yet.
    pub fn new(configuration: IssuerConfiguration, fetch: IssuerFetch) -> Self {
        Self { configuration, fetch, keys: ArcSwapOption::empty(), fetching: Mutex::default() }
    }

    /// As it was configured.
    pub fn configuration(&self) -> &IssuerConfiguration {
        &self.configuration
    }

    /// Whether its keys are known.
    pub fn is_ready(&self) -> bool {
        self.keys.load().is_some()
    }

    /// Fetches the keys until they are known.
    pub async fn make_ready(self: &Arc<Self>) {
        while !self.is_ready() {
            if let Err(error) = self.fetch_shared().await {
                let issuer = &self.configuration.url;
                tracing::warn!(issuer, %error, "the keys of a token issuer are not known yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Keeps the keys up to date.
    pub async fn keep_fresh(self: Arc<Self>) -> Infallible {
        loop {
            self.make_ready().await;
            tokio::time::sleep(REFRESH).await;
            if let Err(error) = self.fetch_shared().await {
                let issuer = &self.configuration.url;
                tracing::warn!(issuer, %error, "cannot fetch the keys of a token issuer; those that are known stay");
            }
        }
    }

    /// Whether the issuer signed the token; `None` for as long as its keys are not known. Where several keys may have
    /// signed it, they are looked at in a place that `place` gives: anybody can make up a token that none has signed.
    pub async fn verify(
        self: &Arc<Self>,
        token: &JwtToken<'_>,
        algorithm: SigningAlgorithm,
        place: &(dyn Fn() -> Result<TokenPlace, NoPlace> + Sync),
    ) -> Option<Result<(), VerifyError>> {
        let known = self.keys.load_full()?;
        Some(self.verify_with(&known, token, algorithm, place).await)
    }

    async fn verify_with(
        self: &Arc<Self>,
        known: &Arc<Vec<VerificationKey>>,
        token: &JwtToken<'_>,
        algorithm: SigningAlgorithm,
        place: &(dyn Fn() -> Result<TokenPlace, NoPlace> + Sync),
    ) -> Result<(), VerifyError> {
        if has_signed(known, token, algorithm, place).await? {
            return Ok(());
        }
        let fetched = match self.fetch_for_token() {
            Some(fetch) => fetch.await,
            // Others have had them fetched just now: what came of it holds for this token as well.
            None => self.fetching.lock().last.as_ref().and_then(|last| last.peek().cloned()).unwrap_or(Ok(())),
        };
        if let Err(error) = fetched {
            return Err(VerifyError::Keys(error.to_string()));
        }
        // The same keys say the same.
        let now = self.keys.load_full().filter(|now| !Arc::ptr_eq(now, known));
        match now {
            Some(now) if has_signed(&now, token, algorithm, place).await? => Ok(()),
            _ => Err(VerifyError::Signature),
        }
    }

    /// A fetch that is under way, or another one if it is time.
    fn fetch_for_token(self: &Arc<Self>) -> Option<SharedFetch> {
        let mut fetching = self.fetching.lock();
        if let Some(under_way) = fetching.last.as_ref().filter(|last| last.peek().is_none()) {
            return Some(under_way.clone());
        }
        if fetching.for_token.is_some_and(|begun| begun.elapsed() < FETCHED_FOR_TOKENS_EVERY) {
            return None;
        }
        fetching.for_token = Some(Instant::now());
        Some(self.begin(&mut fetching))
    }

    /// Fetches the keys once.
    #[cfg(test)]
    pub async fn fetch_once(self: &Arc<Self>) -> Result<(), ProviderError> {
        self.fetch_shared().await
    }

    fn fetch_shared(self: &Arc<Self>) -> SharedFetch {
        let mut fetching = self.fetching.lock();
        let under_way = fetching.last.as_ref().filter(|last| last.peek().is_none()).cloned();
        under_way.unwrap_or_else(|| self.begin(&mut fetching))
    }

    /// In a task of its own: who asked first may give up, and the others go on waiting.
    fn begin(self: &Arc<Self>, fetching: &mut Fetching) -> SharedFetch {
        let provider = self.clone();
        let task = tokio::spawn(async move { provider.fetch().await });
        let fetch = async move { task.await.unwrap_or(Err(ProviderError::Ended)) }.boxed().shared();
        // Polled once by this task: only then is it known to have ended, though nobody waits for it.
        tokio::spawn(fetch.clone());
        fetching.last = Some(fetch.clone());
        fetch
    }

    async fn fetch(&self) -> Result<(), ProviderError> {
        let document = self.fetch.get(&self.discovery_url()).await.map_err(ProviderError::Discovery)?;
        let found = document["issuer"].as_str().unwrap_or_default();
        if found != self.configuration.url {
            let (expected, found) = (self.configuration.url.clone(), found.to_owned());
            return Err(ProviderError::Issuer { expected, found });
        }
        let url = document["jwks_uri"].as_str().filter(|url| !url.is_empty()).ok_or(ProviderError::NoKeys)?;
        let set = self.fetch.get(url).await.map_err(ProviderError::Keys)?;
        let keys = set["keys"].as_array().ok_or(ProviderError::Keys(FetchError::Json))?;
        let (keys, are_more) = signing_keys(keys);
        // Those that were looked at for a token need not be looked at again.
        if self.keys.load().as_deref().is_some_and(|known| **known == keys) {
            return Ok(());
        }
        if are_more {
            let issuer = &self.configuration.url;
            tracing::warn!(issuer, "a token issuer publishes more than {MOST_KEYS} signing keys: the first are used");
        }
        self.keys.store(Some(Arc::new(keys)));
        Ok(())
    }

    fn discovery_url(&self) -> String {
        let IssuerConfiguration { url, discovery_url, .. } = &self.configuration;
        match discovery_url.is_empty() {
            true => format!("{}/.well-known/openid-configuration", url.strip_suffix('/').unwrap_or(url)),
            false => discovery_url.clone(),
        }
    }
}

/// Whether one of the keys signed the token. One that names a key is looked at with that key alone, and each with those
/// alone that can sign so. Other tasks go on between two keys: one may take a millisecond.
async fn has_signed(
    keys: &[VerificationKey],
    token: &JwtToken<'_>,
    algorithm: SigningAlgorithm,
    place: &(dyn Fn() -> Result<TokenPlace, NoPlace> + Sync),
) -> Result<bool, NoPlace> {
    let is_named = |key: &&VerificationKey| token.key_id.is_empty() || key.id == token.key_id;
    let fitting: Vec<_> = keys.iter().filter(is_named).filter(|key| key.fits(algorithm)).collect();
    // One costs no more than a token of this cluster does.
    let _place = if fitting.len() > 1 { Some(place()?) } else { None };
    for key in fitting {
        if key.verifies(algorithm, token.signed.as_bytes(), &token.signature) {
            return Ok(true);
        }
        tokio::task::yield_now().await;
    }
    Ok(false)
}

/// The first of those that may sign tokens, and whether there are more. Others are for something else.
fn signing_keys(keys: &[Value]) -> (Vec<VerificationKey>, bool) {
    let mut all = keys.iter().filter_map(VerificationKey::of);
    let first = all.by_ref().take(MOST_KEYS).collect();
    (first, all.next().is_some())
}

impl fmt::Debug for OidcProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OidcProvider").field("issuer", &self.configuration.url).finish_non_exhaustive()
    }
}
