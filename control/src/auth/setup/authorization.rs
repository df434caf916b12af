//! From flags and a file to those who decide.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;

use crate::{
    auth::{
        access_conditions::AccessConditions,
        access_webhook::AccessWebhook,
        authorizer::{Authorizer, ChainLink},
        configuration::{
            self, ConfigurationFileError, InvalidFields,
            authorization::{AuthorizationConfiguration, AuthorizationFlagsError, AuthorizerConfiguration},
        },
        options::{AuthorizationMode, AuthorizationOptions},
        setup::reload::{AUTHORIZATION, ConfigurationReloadError},
    },
    file_follower::{self, FileFollower, UnusedFile, UsesFile},
    kinds::FieldError,
    metrics::Scrape,
    webhook::{KubeconfigClient, KubeconfigSetupError},
};

/// Why nobody can decide as the flags say.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizationSetupError {
    /// The flags do not hold together.
    #[error(transparent)]
    Flags(#[from] AuthorizationFlagsError),
    /// The file is refused.
    #[error("failed to load AuthorizationConfiguration from file {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigurationFileError,
    },
    /// A webhook's kubeconfig cannot be used.
    #[error("cannot set up the authorization webhook")]
    Webhook(#[from] KubeconfigSetupError),
    /// A condition that is valid cannot be compiled.
    #[error(transparent)]
    Condition(#[from] ConfigurationFileError),
}

/// Who decides, and what has to run for that.
pub struct AuthorizationSetup {
    chain: Option<Vec<ChainLink>>,
    file: Option<(PathBuf, Vec<u8>)>,
    /// Those who decide beside webhooks.
    built_in: BTreeSet<&'static str>,
    /// Whether everything is allowed.
    pub allows_everything: bool,
}

/// The webhooks that decide now, for the metrics. Clones share them.
#[derive(Clone, Default)]
pub struct AccessWebhooks(Arc<ArcSwap<Vec<Arc<AccessWebhook>>>>);

impl AuthorizationSetup {
    /// Reads all that the flags name.
    pub async fn read(options: &AuthorizationOptions) -> Result<Self, AuthorizationSetupError> {
        let mut configuration = AuthorizationConfiguration::of_flags(options)?;
        let mut file = None;
        if let Some(path) = &options.config_file {
            let read = || {
                let bytes = configuration::read(path)?;
                Ok((AuthorizationConfiguration::parse(&bytes)?, bytes))
            };
            let (read, bytes) =
                read().map_err(|source| AuthorizationSetupError::File { path: path.clone(), source })?;
            (configuration, file) = (Some(read), Some((path.clone(), bytes)));
        }
        let allows_everything = configuration.as_ref().is_some_and(AuthorizationConfiguration::allows_everything);
        let chain = match &configuration {
            None => None,
            Some(configuration) => Some(chain(configuration).await.map_err(|error| match error {
                ChainError::Kubeconfig(error) => AuthorizationSetupError::from(error),
                ChainError::Condition(error) => error.into(),
            })?),
        };
        let built_in = configuration.as_ref().map(AuthorizationConfiguration::built_in).unwrap_or_default();
        Ok(Self { chain, file, built_in, allows_everything })
    }

    /// Has those who were configured decide from now on; answers with the file that is watched.
    pub fn install(self, authorizer: &Authorizer, webhooks: &AccessWebhooks) -> Option<FileFollower> {
        let (authorizer, webhooks) = (authorizer.clone(), webhooks.clone());
        let used = UsedAuthorization { authorizer, webhooks, built_in: self.built_in };
        if let Some(chain) = self.chain {
            used.decide_by(chain);
        }
        let (path, bytes) = self.file?;
        Some(FileFollower::new(AUTHORIZATION, path, file_follower::hash(&bytes), used))
    }
}

enum ChainError {
    Kubeconfig(KubeconfigSetupError),
    Condition(ConfigurationFileError),
}

async fn chain(configuration: &AuthorizationConfiguration) -> Result<Vec<ChainLink>, ChainError> {
    let mut chain = Vec::with_capacity(configuration.authorizers.len());
    for authorizer in &configuration.authorizers {
        chain.push(match authorizer {
            AuthorizerConfiguration::BuiltIn(AuthorizationMode::AlwaysAllow) => ChainLink::AlwaysAllow,
            AuthorizerConfiguration::BuiltIn(AuthorizationMode::AlwaysDeny) => ChainLink::AlwaysDeny,
            AuthorizerConfiguration::BuiltIn(AuthorizationMode::Node) => ChainLink::Node,
            AuthorizerConfiguration::BuiltIn(AuthorizationMode::Rbac) => ChainLink::Rbac,
            // None is built in: it is always the other variant.
            AuthorizerConfiguration::BuiltIn(AuthorizationMode::Webhook) => continue,
            AuthorizerConfiguration::Webhook { name, webhook } => {
                let client = KubeconfigClient::read(&webhook.kube_config_file).await.map_err(ChainError::Kubeconfig)?;
                let conditions = AccessConditions::compile(webhook.match_conditions.iter().map(String::as_str));
                let conditions = conditions.map_err(|error| {
                    let error = FieldError::invalid_unnamed("matchConditions", error.to_string());
                    ChainError::Condition(InvalidFields(vec![error]).into())
                })?;
                ChainLink::Webhook(Arc::new(AccessWebhook::new(name, client, webhook.clone(), conditions)))
            }
        });
    }
    Ok(chain)
}

/// Who uses a changed file.
struct UsedAuthorization {
    authorizer: Authorizer,
    webhooks: AccessWebhooks,
    /// As the first file named them.
    built_in: BTreeSet<&'static str>,
}

impl UsedAuthorization {
    fn decide_by(&self, chain: Vec<ChainLink>) {
        let webhooks = chain.iter().filter_map(|link| match link {
            ChainLink::Webhook(webhook) => Some(webhook.clone()),
            _ => None,
        });
        self.webhooks.0.store(Arc::new(webhooks.collect()));
        self.authorizer.decide_by(chain);
    }
}

#[async_trait::async_trait]
impl UsesFile for UsedAuthorization {
    async fn use_changed(&self, _: &Path, bytes: &[u8]) -> Result<(), UnusedFile> {
        Ok(self.replace(bytes).await?)
    }
}

impl UsedAuthorization {
    /// Only webhooks come and go: those who decide beside them are the same in every file, whatever their order. None
    /// may be dropped, as in Kubernetes. None may come either: Kubernetes lets `AlwaysAllow` and `AlwaysDeny` come, but
    /// whether strangers are let in was decided at the start by whether everything is allowed.
    async fn replace(&self, bytes: &[u8]) -> Result<(), ConfigurationReloadError> {
        let configuration = AuthorizationConfiguration::parse(bytes)?;
        let listed = |types: &BTreeSet<&'static str>, others: &BTreeSet<&'static str>| {
            types.difference(others).copied().collect::<Vec<_>>().join(" ")
        };
        let (before, now) = (&self.built_in, configuration.built_in());
        let differences = [("missing required", listed(before, &now)), ("unexpected new", listed(&now, before))];
        let errors = differences.into_iter().filter(|(_, types)| !types.is_empty());
        let errors =
            errors.map(|(what, types)| FieldError::forbidden("authorizers", &format!("{what} types: [{types}]")));
        InvalidFields::refuse(errors.collect()).map_err(ConfigurationFileError::from)?;
        let chain = chain(&configuration).await.map_err(|error| match error {
            ChainError::Kubeconfig(error) => ConfigurationReloadError::from(error),
            ChainError::Condition(error) => error.into(),
        })?;
        self.decide_by(chain);
        Ok(())
    }
}

impl AccessWebhooks {
    /// Tells of what became of questions. Names and labels are those of kube-apiserver.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let webhooks = self.0.load();
        if webhooks.is_empty() {
            return Ok(());
        }
        let labels: Vec<[(&str, &str); 2]> = webhooks
            .iter()
            .flat_map(|webhook| ["success", "error"].map(|result| [("name", webhook.name()), ("result", result)]))
            .collect();
        let counts = webhooks.iter().flat_map(|webhook| webhook.counts().evaluations());
        scrape.counters(
            "apiserver_authorization_webhook_evaluations",
            "Round-trips to authorization webhooks.",
            labels.iter().zip(counts).map(|(labels, count)| (&labels[..], count)),
        )?;
        let names: Vec<[(&str, &str); 2]> =
            webhooks.iter().map(|webhook| [("name", webhook.name()), ("result", "error")]).collect();
        let counts = webhooks.iter().map(|webhook| webhook.counts().evaluations_failed_open());
        scrape.counters(
            "apiserver_authorization_webhook_evaluations_fail_open",
            "NoOpinion results due to webhook timeout or error.",
            names.iter().zip(counts).map(|(labels, count)| (&labels[..], count)),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::open_store,
        auth::{attributes::Attributes, authorizer::Verdict},
        identity::Identity,
        kinds::Registry,
    };

    fn file(types: &[&str]) -> Vec<u8> {
        let authorizers = types.iter().map(|of| json!({"type": of, "name": of.to_lowercase()}));
        let authorizers: Vec<Value> = authorizers.collect();
        let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
            "authorizers": authorizers});
        file.to_string().into_bytes()
    }

    #[tokio::test]
    async fn a_changed_file_has_the_built_in_types_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(&dir.path().join("store"), &Registry::default()).unwrap();
        let authorizer = Authorizer::new(Arc::new(store));
        let built_in = AuthorizationConfiguration::parse(&file(&["Node", "RBAC"])).unwrap().built_in();
        let used = UsedAuthorization { authorizer: authorizer.clone(), webhooks: AccessWebhooks::default(), built_in };
        assert!(used.replace(&file(&["RBAC", "Node"])).await.is_ok(), "their order may change");
        for (types, why) in [
            (&["RBAC"][..], "authorizers: Forbidden: missing required types: [Node]"),
            (&["Node", "RBAC", "AlwaysAllow"], "authorizers: Forbidden: unexpected new types: [AlwaysAllow]"),
            (&["AlwaysAllow"], "authorizers: Forbidden: missing required types: [Node RBAC]"),
        ] {
            let refused = used.replace(&file(types)).await.unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let stranger = Identity::anonymous();
        let asked = Attributes::Path { verb: "get".to_owned(), path: "/metrics" };
        assert!(matches!(authorizer.decide(&stranger, &asked).await.unwrap(), Verdict::Refused { .. }));
    }
}
