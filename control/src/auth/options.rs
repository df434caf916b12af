//! What the flags `--authentication-…`, `--oidc-…`, `--requestheader-…` and `--authorization-…` say. The defaults are
//! those of kube-apiserver, but for the authorisers: see [`AuthorizationOptions`].

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, time::Duration};

use super::{jwt::key::SigningAlgorithm, outside::review::OutsideReviewVersion};

/// How clients prove who they are, beside certificates and tokens of the cluster's own.
#[derive(Clone, Debug, Default)]
pub struct AuthenticationOptions {
    /// An `AuthenticationConfiguration`.
    pub config_file: Option<PathBuf>,
    /// Whether requests without a credential are let in; `None` for what the file says, or else that they are.
    pub anonymous: Option<bool>,
    /// One issuer of tokens, without a file.
    pub oidc: OidcOptions,
    /// A webhook that knows tokens.
    pub token_webhook: Option<TokenWebhookOptions>,
    /// A file of tokens.
    pub token_file: Option<PathBuf>,
    /// Proxies that say who asks.
    pub request_header: RequestHeaderOptions,
}

/// One issuer of tokens. What is not said is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OidcOptions {
    /// `--oidc-issuer-url`
    pub issuer_url: Option<String>,
    /// `--oidc-client-id`
    pub client_id: Option<String>,
    /// `--oidc-username-claim`
    pub username_claim: Option<String>,
    /// `--oidc-username-prefix`
    pub username_prefix: Option<String>,
    /// `--oidc-groups-claim`
    pub groups_claim: Option<String>,
    /// `--oidc-groups-prefix`
    pub groups_prefix: Option<String>,
    /// `--oidc-required-claim`
    pub required_claims: BTreeMap<String, String>,
    /// `--oidc-ca-file`
    pub ca_file: Option<PathBuf>,
    /// `--oidc-signing-algs`
    pub signing_algs: Vec<SigningAlgorithm>,
}

/// A webhook that is asked whose token it is.
#[derive(Clone, Debug)]
pub struct TokenWebhookOptions {
    /// A kubeconfig.
    pub config_file: PathBuf,
    /// The version that it is asked in.
    pub version: OutsideReviewVersion,
    /// How long an answer is kept.
    pub cache_ttl: Duration,
}

/// Proxies that say who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHeaderOptions {
    /// Whose certificates they show. Without it there are none.
    pub client_ca_file: Option<PathBuf>,
    /// Their names; any if there are none.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name, the first one that is there counts.
    pub username_headers: Vec<String>,
    /// Headers with groups.
    pub group_headers: Vec<String>,
    /// What headers with anything else begin with.
    pub extra_headers_prefix: Vec<String>,
    /// Headers with the uid.
    pub uid_headers: Vec<String>,
}

/// Who decides what clients may do.
///
/// kube-apiserver allows everything where nothing is said; here nodes and roles decide.
#[derive(Clone, Debug, Default)]
pub struct AuthorizationOptions {
    /// An `AuthorizationConfiguration`.
    pub config_file: Option<PathBuf>,
    /// Those who decide, in order; empty for nodes and roles.
    pub modes: Vec<AuthorizationMode>,
    /// The kubeconfig of the webhook.
    pub webhook_config_file: Option<PathBuf>,
    /// The version that it is asked in.
    pub webhook_version: Option<OutsideReviewVersion>,
    /// How long it is remembered that something is allowed.
    pub webhook_cache_authorized_ttl: Option<Duration>,
    /// How long it is remembered that something is not.
    pub webhook_cache_unauthorized_ttl: Option<Duration>,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthorizationMode {
    /// Everything is allowed.
    AlwaysAllow,
    /// Nothing is allowed.
    AlwaysDeny,
    /// What nodes need.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Another server.
    Webhook,
}

/// A mode that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("authorization-mode {0:?} is not a valid mode")]
pub struct AuthorizationModeError(String);

impl AuthorizationMode {
    /// All, by name.
    pub const ALL: [Self; 5] = [Self::AlwaysAllow, Self::AlwaysDeny, Self::Node, Self::Rbac, Self::Webhook];

    /// As flags and files name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AlwaysAllow => "AlwaysAllow",
            Self::AlwaysDeny => "AlwaysDeny",
            Self::Node => "Node",
            Self::Rbac => "RBAC",
            Self::Webhook => "Webhook",
        }
    }
}

impl FromStr for AuthorizationMode {
    type Err = AuthorizationModeError;

    fn from_str(text: &str) -> Result<Self, AuthorizationModeError> {
        let known = Self::ALL.into_iter().find(|mode| mode.name() == text);
        known.ok_or_else(|| AuthorizationModeError(text.to_owned()))
    }
}

impl TokenWebhookOptions {
    /// The documented defaults.
    pub fn new(config_file: PathBuf) -> Self {
        Self { config_file, version: OutsideReviewVersion::default(), cache_ttl: Duration::from_secs(120) }
    }
}

impl OidcOptions {
    /// Whether anything is said.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }
}
