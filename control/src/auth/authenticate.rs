//! Who sends a request: what its credentials are, and who knows them.
//!
//! First a front proxy's word, then a certificate, then a bearer token: of a file, of this cluster, of another issuer,
//! of a webhook. Who shows none of them is anonymous, where that is allowed. What this server knows itself is answered
//! at once; only for the tokens of others somebody else may have to be asked.

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::SystemTime};

use http::{HeaderValue, header, request::Parts};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{
    Identity,
    authorizer::Authorizer,
    client_certificate::{BadCertificate, CertificateIdentity},
    configuration::authentication::AnonymousConfiguration,
    jwt::{JwtAuthenticators, JwtError, token::VerifyError},
    outside::places::{Asker, NoPlace},
    request_headers::{FrontProxies, FrontProxyConnection, ProxiedIdentity, is_until},
    static_tokens::StaticTokens,
    stored_facts::Unreadable,
    token::{Identified, TokenAuthenticator, TokenRefusal, bearer_token},
    token_webhook::{TokenWebhook, TokenWebhookError},
};
use crate::{
    identity::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED},
    request::PeerAddress,
    status::Status,
};

/// The certificate a connection came with, if any, judged once.
pub type ConnectionCertificate = Option<Result<CertificateIdentity, BadCertificate>>;

/// Tells who sends a request. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator(Arc<Known>);

/// Whom an authenticator knows.
pub struct Known {
    /// Tokens of this cluster.
    pub tokens: TokenAuthenticator,
    /// Tokens of a file.
    pub static_tokens: Option<StaticTokens>,
    /// Tokens of other issuers.
    pub jwt: Option<JwtAuthenticators>,
    /// Tokens that a webhook knows.
    pub webhook: Option<TokenWebhook>,
    /// Proxies that say who asks.
    pub front_proxies: Option<Arc<FrontProxies>>,
    /// Which requests need no credential.
    pub anonymous: AnonymousConfiguration,
}

/// What a request shows of its sender.
#[derive(Clone, Copy)]
pub struct Credentials<'r> {
    authorization: Option<&'r HeaderValue>,
    certificate: &'r ConnectionCertificate,
    proxied: Option<&'r ProxiedIdentity>,
    path: &'r str,
    from: Option<IpAddr>,
}

/// The same of a request that is gone, and whose answer lasts.
#[derive(Clone)]
pub struct KeptCredentials {
    authorization: Option<HeaderValue>,
    certificate: Arc<ConnectionCertificate>,
    proxied: Option<ProxiedIdentity>,
    path: String,
    from: Option<IpAddr>,
}

/// Why it is not said who sends a request.
#[derive(Clone, Debug)]
pub enum Unauthenticated {
    /// There is no credential, or a bad one: 401.
    Refused,
    /// Who knows cannot be asked for the moment: 401 as well, but it withdraws nothing.
    Undecided,
    /// It cannot be looked up here, or not now.
    Failed(Status),
}

/// What is wrong with a token, if that may be told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenFailure {
    /// One of this cluster.
    #[error(transparent)]
    Own(#[from] TokenRefusal),
    /// One of an issuer that is known.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// One that the webhook was asked about.
    #[error(transparent)]
    Webhook(#[from] TokenWebhookError),
}

/// What can be said at once.
enum AtOnce<'r> {
    Known(Result<Identity, Unauthenticated>),
    /// A token of somebody else, perhaps.
    Foreign(Cow<'r, str>),
}

impl Unauthenticated {
    /// The refusal.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Refused | Self::Undecided => Status::unauthorized(),
            Self::Failed(status) => status.clone(),
        }
    }
}

impl<'r> Credentials<'r> {
    /// Of a request that came over a connection with this certificate.
    pub fn of(parts: &'r Parts, certificate: &'r ConnectionCertificate) -> Self {
        Self {
            authorization: parts.headers.get(header::AUTHORIZATION),
            certificate,
            proxied: parts.extensions.get(),
            path: parts.uri.path(),
            from: parts.extensions.get::<PeerAddress>().map(|peer| peer.0.ip()),
        }
    }
}

impl KeptCredentials {
    /// Of a request that came over a connection with this certificate.
    pub fn of(parts: &Parts, certificate: Arc<ConnectionCertificate>) -> Self {
        let Credentials { authorization, proxied, path, from, .. } = Credentials::of(parts, &certificate);
        let (authorization, proxied, path) = (authorization.cloned(), proxied.cloned(), path.to_owned());
        Self { authorization, certificate, proxied, path, from }
    }

    /// As the request showed them.
    pub fn shown(&self) -> Credentials<'_> {
        Credentials {
            authorization: self.authorization.as_ref(),
            certificate: &self.certificate,
            proxied: self.proxied.as_ref(),
            path: &self.path,
            from: self.from,
        }
    }
}

impl Authenticator {
    /// Knows the tokens of this cluster alone, and lets everybody in who shows nothing.
    pub fn new(authorizer: &Authorizer) -> Self {
        Self::knowing(Known {
            tokens: TokenAuthenticator::new(authorizer),
            static_tokens: None,
            jwt: None,
            webhook: None,
            front_proxies: None,
            anonymous: AnonymousConfiguration { enabled: true, conditions: Vec::new() },
        })
    }

    /// Knows these.
    pub fn knowing(known: Known) -> Self {
        Self(Arc::new(known))
    }

    /// The audience of tokens that are for this server.
    pub fn audience(&self) -> &str {
        self.0.tokens.audience()
    }

    /// Whether a connection with this certificate, leaf first, comes from a front proxy.
    pub fn recognise_front_proxy(&self, chain: &[CertificateDer<'_>]) -> Option<FrontProxyConnection> {
        self.0.front_proxies.as_ref()?.recognise(chain)
    }

    /// Reads whom a front proxy names, if the request came from one. Before anything else is read of it.
    pub fn read_request_headers(&self, parts: &mut Parts) {
        let Some(proxies) = &self.0.front_proxies else { return };
        let Some(connection) = parts.extensions.get::<FrontProxyConnection>() else { return };
        let not_after = connection.not_after;
        if !proxies.still_recognise(connection) {
            parts.extensions.remove::<FrontProxyConnection>();
            return;
        }
        if let Some(identity) = proxies.take(&mut parts.headers) {
            parts.extensions.insert(ProxiedIdentity { identity: with_group_of_all(identity), not_after });
        }
    }

    /// Who sends a request. Nothing is waited for where this server knows.
    pub async fn authenticate(&self, shown: Credentials<'_>) -> Result<Identity, Unauthenticated> {
        match self.at_once(shown) {
            AtOnce::Known(known) => known,
            // In a box: most requests need no room for this.
            AtOnce::Foreign(token) => Box::pin(self.holder(&token, shown.from)).await,
        }
    }

    /// A certificate first; a bearer token where there is none, or none that is good. Who shows neither is anonymous.
    fn at_once<'r>(&self, shown: Credentials<'r>) -> AtOnce<'r> {
        let refused = AtOnce::Known(Err(Unauthenticated::Refused));
        let now = SystemTime::now();
        if let Some(ProxiedIdentity { identity, not_after }) = shown.proxied
            && is_until(*not_after, now)
        {
            return AtOnce::Known(Ok(identity.clone()));
        }
        match shown.certificate.as_ref().map(|c| c.as_ref().map(|c| c.at(now))) {
            Some(Ok(Ok(identity))) => return AtOnce::Known(Ok(identity.clone())),
            Some(Ok(Err(e))) => tracing::debug!("{e}"),
            Some(Err(e)) => tracing::debug!("{e}"),
            None => {}
        }
        let Some(token) = shown.authorization.and_then(bearer_token) else {
            let is_anonymous = shown.certificate.is_none() && self.lets_in_anybody(shown.path);
            return if is_anonymous { AtOnce::Known(Ok(Identity::anonymous())) } else { refused };
        };
        if let Some(identity) = self.0.static_tokens.as_ref().and_then(|tokens| tokens.identify(&token)) {
            return AtOnce::Known(Ok(with_group_of_all(identity.clone())));
        }
        match self.0.tokens.identify_own(&token) {
            Err(unreadable) => AtOnce::Known(Err(Unauthenticated::Failed(unreadable.to_status()))),
            Ok(Ok(found)) => AtOnce::Known(Ok(found.identity)),
            Ok(Err(None)) if self.asks_others() => AtOnce::Foreign(token),
            Ok(Err(why)) => {
                tracing::debug!(why = why.map(tracing::field::display), "a bearer token is not good");
                refused
            }
        }
    }

    fn lets_in_anybody(&self, path: &str) -> bool {
        let AnonymousConfiguration { enabled, conditions } = &self.0.anonymous;
        *enabled && (conditions.is_empty() || conditions.iter().any(|condition| condition.path == path))
    }

    fn asks_others(&self) -> bool {
        self.0.webhook.is_some() || self.0.jwt.as_ref().is_some_and(JwtAuthenticators::are_any)
    }

    /// Who holds a token that is not of this cluster, and is for this server.
    async fn holder(&self, token: &str, from: Option<IpAddr>) -> Result<Identity, Unauthenticated> {
        let audiences = [self.audience().to_owned()];
        match self.foreign(token, &audiences, from.map_or(Asker::Known, Asker::Stranger)).await {
            Ok(found) => Ok(found.identity),
            Err(failures) => {
                for failure in &failures {
                    tracing::debug!(%failure, "a bearer token is not good");
                }
                Err(unauthenticated(&failures))
            }
        }
    }

    /// Who holds a token that is good for one of `audiences`, or what is wrong with it. `reviewer` was shown it.
    pub async fn review(
        &self,
        reviewer: &Identity,
        token: &str,
        audiences: &[String],
    ) -> Result<Result<Identified, Vec<TokenFailure>>, Unreadable> {
        if let Some(identity) = self.0.static_tokens.as_ref().and_then(|tokens| tokens.identify(token)) {
            // It names no audience, so it is for this server alone.
            let common = self.own_audience(audiences);
            let identity = with_group_of_all(identity.clone());
            return Ok(common.map(|audiences| Identified { identity, audiences }).ok_or_else(Vec::new));
        }
        match self.0.tokens.identify_for(token, audiences)? {
            Ok(found) => Ok(Ok(found)),
            // One that this server has issued is nobody else's, and not sent to anybody.
            Err(Some(why)) => Ok(Err(vec![why.into()])),
            Err(None) => Ok(self.foreign(token, audiences, Asker::Reviewer(&reviewer.name)).await),
        }
    }

    /// Asks one after the other.
    async fn foreign(
        &self,
        token: &str,
        audiences: &[String],
        asker: Asker<'_>,
    ) -> Result<Identified, Vec<TokenFailure>> {
        let mut failures = Vec::new();
        // The audiences of such a token are those of its issuer's configuration: here it is for this server alone.
        if let (Some(jwt), Some(audiences)) = (&self.0.jwt, self.own_audience(audiences)) {
            match jwt.authenticate(token, Timestamp::now(), asker).await {
                Some(Ok(identity)) => return Ok(Identified { identity: with_group_of_all(identity), audiences }),
                Some(Err(error)) => failures.push(error.into()),
                None => {}
            }
        }
        if let Some(webhook) = &self.0.webhook {
            match webhook.authenticate(token, audiences, self.audience(), asker).await {
                Ok(Some(found)) => {
                    let Identified { identity, audiences } = &*found;
                    let identity = with_group_of_all(identity.clone());
                    return Ok(Identified { identity, audiences: audiences.clone() });
                }
                Ok(None) => {}
                Err(error) => failures.push(error.into()),
            }
        }
        Err(failures)
    }

    /// This server, if it is among `audiences`.
    fn own_audience(&self, audiences: &[String]) -> Option<Vec<String>> {
        let own = self.audience();
        audiences.iter().any(|audience| audience == own).then(|| vec![own.to_owned()])
    }
}

/// What is said of a token that nobody was asked about, since this server asks about too many: nothing where it is
/// known to be bad. What the issuer that the token names says of it decides, if it says anything: that nobody else can
/// be asked makes no good token of one that has expired.
pub fn no_place(failures: &[TokenFailure]) -> Option<NoPlace> {
    let full = failures.iter().find_map(|failure| match failure {
        TokenFailure::Webhook(TokenWebhookError::NoPlace(full))
        | TokenFailure::Jwt(JwtError::Verify(VerifyError::NoPlace(full))) => Some(*full),
        _ => None,
    });
    full.filter(|_| !failures.iter().any(is_conclusive))
}

fn is_conclusive(failure: &TokenFailure) -> bool {
    matches!(failure, TokenFailure::Jwt(error) if !error.is_undecided())
}

/// What a request with a bad token comes to.
fn unauthenticated(failures: &[TokenFailure]) -> Unauthenticated {
    if failures.iter().any(is_conclusive) {
        return Unauthenticated::Refused;
    }
    let is_undecided = |failure: &TokenFailure| match failure {
        TokenFailure::Own(_) => false,
        TokenFailure::Jwt(error) => error.is_undecided(),
        TokenFailure::Webhook(error) => error.is_undecided(),
    };
    match no_place(failures) {
        Some(full) => Unauthenticated::Failed(full.to_status()),
        None if failures.iter().any(is_undecided) => Unauthenticated::Undecided,
        None => Unauthenticated::Refused,
    }
}

/// A user who proved who they are is in the group of all of them, unless somebody said what it is to be. Source:
/// `AuthenticatedGroupAdder`.
fn with_group_of_all(mut identity: Identity) -> Identity {
    let is_said = identity.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
    if identity.name != ANONYMOUS && !is_said {
        identity.groups.push(AUTHENTICATED.to_owned());
    }
    identity
}

#[cfg(test)]
mod tests;
