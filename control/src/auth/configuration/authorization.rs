//! What an `AuthorizationConfiguration` says, and what the flags `--authorization-…` say in its terms.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use serde_json::Value;

use super::{
    ConfigurationFileError, FileKind, Shape, authentication::remove_nulls, authorization_validation::validate,
};
use crate::{
    auth::{
        options::{AuthorizationMode, AuthorizationOptions},
        outside::review::OutsideReviewVersion,
    },
    kinds::go_duration::go_duration,
};

/// Those who decide, in order. Always valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationConfiguration {
    /// One at least.
    pub authorizers: Vec<AuthorizerConfiguration>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizerConfiguration {
    /// One that is built in.
    BuiltIn(AuthorizationMode),
    /// Another server.
    Webhook {
        /// For messages and metrics.
        name: String,
        /// How it is asked.
        webhook: WebhookConfiguration,
    },
}

/// How a webhook is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfiguration {
    /// How long it is remembered that something is allowed…
    pub authorized_ttl: Duration,
    /// … if at all.
    pub caches_authorized: bool,
    /// How long it is remembered that something is not…
    pub unauthorized_ttl: Duration,
    /// … if at all.
    pub caches_unauthorized: bool,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The version that it is asked in.
    pub subject_access_review_version: AccessVersion,
    /// What is decided where it cannot be asked.
    pub failure_policy: FailurePolicy,
    /// Where it is.
    pub kube_config_file: PathBuf,
    /// When it is asked.
    pub match_conditions: Vec<String>,
}

/// What is decided where a webhook cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// Others decide.
    NoOpinion,
    /// It is denied.
    Deny,
}

/// The version that a webhook is asked in about access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessVersion(pub OutsideReviewVersion);

const TIMEOUT: Duration = Duration::from_secs(30);
const AUTHORIZED_TTL: Duration = Duration::from_secs(300);
const UNAUTHORIZED_TTL: Duration = Duration::from_secs(30);
/// Of the webhook that flags describe.
const DEFAULT_WEBHOOK_NAME: &str = "default";

use Shape::{Bool, Duration as Time, List, Object, Text};

const FILE: FileKind = FileKind {
    kind: "AuthorizationConfiguration",
    fields: &[(
        "authorizers",
        List(&Object(&[
            ("type", Text),
            ("name", Text),
            (
                "webhook",
                Object(&[
                    ("authorizedTTL", Time),
                    ("cacheAuthorizedRequests", Bool),
                    ("unauthorizedTTL", Time),
                    ("cacheUnauthorizedRequests", Bool),
                    ("timeout", Time),
                    ("subjectAccessReviewVersion", Text),
                    ("matchConditionSubjectAccessReviewVersion", Text),
                    ("failurePolicy", Text),
                    ("connectionInfo", Object(&[("type", Text), ("kubeConfigFile", Text)])),
                    ("matchConditions", List(&Object(&[("expression", Text)]))),
                ]),
            ),
        ])),
    )],
};

/// Flags that do not hold together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationFlagsError {
    /// A file says it all.
    #[error(
        "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are \
         defined"
    )]
    FileAndFlags,
    /// A mode needs a file.
    #[error("authorization-mode Webhook's authorization config file not passed")]
    NoWebhookFile,
    /// A file needs a mode.
    #[error("cannot specify --authorization-webhook-config-file without mode Webhook")]
    NoWebhookMode,
    /// A mode is there twice.
    #[error("authorization-mode {0:?} has mode specified more than once")]
    Twice(Vec<&'static str>),
}

impl AuthorizationConfiguration {
    /// Reads the text of a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigurationFileError> {
        let mut value = FILE.parse(bytes)?;
        remove_nulls(&mut value);
        super::InvalidFields::refuse(validate(&value))?;
        let authorizers = value["authorizers"].as_array().into_iter().flatten().filter_map(authorizer);
        Ok(Self { authorizers: authorizers.collect() })
    }

    /// What the flags say; `None` where they say nothing, or name a file.
    pub fn of_flags(options: &AuthorizationOptions) -> Result<Option<Self>, AuthorizationFlagsError> {
        let AuthorizationOptions { config_file, modes, webhook_config_file, .. } = options;
        let ttls = (options.webhook_cache_authorized_ttl, options.webhook_cache_unauthorized_ttl);
        let is_any = !modes.is_empty() || webhook_config_file.is_some() || options.webhook_version.is_some();
        if config_file.is_some() {
            let none = !is_any && ttls == (None, None);
            return if none { Ok(None) } else { Err(AuthorizationFlagsError::FileAndFlags) };
        }
        if modes.iter().enumerate().any(|(at, mode)| modes.iter().take(at).any(|before| before == mode)) {
            return Err(AuthorizationFlagsError::Twice(modes.iter().map(|mode| mode.name()).collect()));
        }
        if webhook_config_file.is_some() && !modes.contains(&AuthorizationMode::Webhook) {
            return Err(AuthorizationFlagsError::NoWebhookMode);
        }
        let authorizer = |mode: &AuthorizationMode| match mode {
            AuthorizationMode::Webhook => {
                let file = webhook_config_file.clone().ok_or(AuthorizationFlagsError::NoWebhookFile)?;
                let (authorized_ttl, unauthorized_ttl) =
                    (ttls.0.unwrap_or(AUTHORIZED_TTL), ttls.1.unwrap_or(UNAUTHORIZED_TTL));
                let webhook = WebhookConfiguration {
                    authorized_ttl,
                    caches_authorized: !authorized_ttl.is_zero(),
                    unauthorized_ttl,
                    caches_unauthorized: !unauthorized_ttl.is_zero(),
                    timeout: TIMEOUT,
                    subject_access_review_version: AccessVersion(options.webhook_version.unwrap_or_default()),
                    failure_policy: FailurePolicy::NoOpinion,
                    kube_config_file: file,
                    match_conditions: Vec::new(),
                };
                Ok(AuthorizerConfiguration::Webhook { name: DEFAULT_WEBHOOK_NAME.to_owned(), webhook })
            }
            mode => Ok(AuthorizerConfiguration::BuiltIn(*mode)),
        };
        let authorizers = modes.iter().map(authorizer).collect::<Result<Vec<_>, _>>()?;
        Ok((!authorizers.is_empty()).then_some(Self { authorizers }))
    }

    /// The types of those who decide beside webhooks.
    pub fn built_in(&self) -> BTreeSet<&'static str> {
        let types = self.authorizers.iter().filter_map(|authorizer| match authorizer {
            AuthorizerConfiguration::BuiltIn(mode) => Some(mode.name()),
            AuthorizerConfiguration::Webhook { .. } => None,
        });
        types.collect()
    }

    /// Whether everything is allowed.
    pub fn allows_everything(&self) -> bool {
        self.authorizers.contains(&AuthorizerConfiguration::BuiltIn(AuthorizationMode::AlwaysAllow))
    }
}

/// Of a value that is valid.
fn authorizer(value: &Value) -> Option<AuthorizerConfiguration> {
    let mode: AuthorizationMode = value["type"].as_str()?.parse().ok()?;
    if mode != AuthorizationMode::Webhook {
        return Some(AuthorizerConfiguration::BuiltIn(mode));
    }
    let webhook = &value["webhook"];
    let time = |field: &str, default: Duration| duration(&webhook[field]).filter(|t| !t.is_zero()).unwrap_or(default);
    let flag = |field: &str| webhook[field].as_bool().unwrap_or(true);
    let conditions = webhook["matchConditions"].as_array().into_iter().flatten();
    let webhook = WebhookConfiguration {
        authorized_ttl: time("authorizedTTL", AUTHORIZED_TTL),
        caches_authorized: flag("cacheAuthorizedRequests"),
        unauthorized_ttl: time("unauthorizedTTL", UNAUTHORIZED_TTL),
        caches_unauthorized: flag("cacheUnauthorizedRequests"),
        timeout: time("timeout", TIMEOUT),
        subject_access_review_version: AccessVersion(webhook["subjectAccessReviewVersion"].as_str()?.parse().ok()?),
        failure_policy: match webhook["failurePolicy"].as_str()? {
            "Deny" => FailurePolicy::Deny,
            _ => FailurePolicy::NoOpinion,
        },
        kube_config_file: webhook["connectionInfo"]["kubeConfigFile"].as_str()?.into(),
        match_conditions: conditions.filter_map(|c| Some(c["expression"].as_str()?.to_owned())).collect(),
    };
    Some(AuthorizerConfiguration::Webhook { name: value["name"].as_str()?.to_owned(), webhook })
}

fn duration(value: &Value) -> Option<Duration> {
    let nanos = u64::try_from(go_duration(value.as_str()?).ok()?).ok()?;
    Some(Duration::from_nanos(nanos))
}

impl WebhookConfiguration {
    /// How long it is remembered that something is allowed.
    pub fn kept_authorized(&self) -> Option<Duration> {
        self.caches_authorized.then_some(self.authorized_ttl)
    }

    /// How long it is remembered that something is not.
    pub fn kept_unauthorized(&self) -> Option<Duration> {
        self.caches_unauthorized.then_some(self.unauthorized_ttl)
    }
}

impl AccessVersion {
    /// The older version has another name for the groups.
    pub fn rename_groups(self, spec: &mut Value) {
        if self.0 == OutsideReviewVersion::V1beta1
            && let Some(fields) = spec.as_object_mut()
            && let Some(groups) = fields.remove("groups")
        {
            fields.insert("group".to_owned(), groups);
        }
    }
}

impl From<AccessVersion> for OutsideReviewVersion {
    fn from(AccessVersion(version): AccessVersion) -> Self {
        version
    }
}
