//! From flags and a file to an [`Authenticator`].

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    auth::{
        authenticate::{Authenticator, Known},
        authorizer::Authorizer,
        configuration::{
            self, ConfigurationFileError, InvalidFields,
            authentication::{
                AnonymousConfiguration, AuthenticationConfiguration, ClaimMapping, ClaimMappings, ClaimValidationRule,
                IssuerConfiguration, JwtAuthenticatorConfiguration,
            },
            authentication_validation::validate,
        },
        jwt::{JwtAuthenticators, expression::ClaimExpressionError, key::SigningAlgorithm},
        options::{AuthenticationOptions, OidcOptions},
        request_headers::FrontProxies,
        setup::reload::{AUTHENTICATION, ConfigurationReloadError},
        static_tokens::{StaticTokens, StaticTokensError},
        token::TokenAuthenticator,
        token_webhook::TokenWebhook,
    },
    file_follower::{self, FileFollower, UnusedFile, UsesFile},
    kinds::FieldError,
    webhook::{Dial, KubeconfigClient, KubeconfigSetupError},
};

/// How long the issuers of a changed file may take to answer. Source: `UpdateAuthenticationConfigTimeout`.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Why nobody can be authenticated as the flags say.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationSetupError {
    /// A file and flags say the same.
    #[error("authentication-config file and oidc-* flags are mutually exclusive")]
    FileAndFlags,
    /// Flags are missing.
    #[error("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set")]
    OidcFlags,
    /// The file says it, and a flag.
    #[error(
        "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in \
         authentication configuration file"
    )]
    Anonymous,
    /// The file is refused.
    #[error("failed to load authentication configuration from file {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigurationFileError,
    },
    /// The flags are refused.
    #[error("invalid authentication configuration")]
    Flags(#[from] InvalidFields),
    /// The authorities of the issuer cannot be read.
    #[error("cannot read --oidc-ca-file {path:?}")]
    OidcAuthorities {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An expression that is valid cannot be compiled.
    #[error(transparent)]
    Expression(#[from] ClaimExpressionError),
    /// The webhook's kubeconfig cannot be used.
    #[error("cannot set up the token webhook")]
    Webhook(#[from] KubeconfigSetupError),
    /// The file of tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] StaticTokensError),
}

/// Who authenticates, and what has to run for that.
pub struct AuthenticationSetup {
    /// Who authenticates.
    pub authenticator: Authenticator,
    /// The issuers whose keys have to be kept up to date.
    pub jwt: JwtAuthenticators,
    /// The file that is watched.
    pub reload: Option<FileFollower>,
}

impl AuthenticationSetup {
    /// Reads all that the flags name. `authorizer` knows the tokens of this cluster, `dial` reaches the issuers of
    /// others; with `allows_everything` nobody comes in without a credential, unless the file says so.
    pub async fn read(
        options: &AuthenticationOptions,
        authorizer: &Authorizer,
        front_proxies: Option<Arc<FrontProxies>>,
        dial: Arc<dyn Dial>,
        allows_everything: bool,
    ) -> Result<Self, AuthenticationSetupError> {
        let own_issuers: Vec<String> =
            authorizer.facts().issuer().map(|issuer| issuer.url().to_owned()).into_iter().collect();
        let (configuration, file) = configuration_of(options, &own_issuers)?;
        let accepted = match options.oidc.signing_algs.as_slice() {
            // As in Kubernetes: a file lets in all that are known.
            _ if file.is_some() => SigningAlgorithm::ALL.to_vec(),
            [] => vec![SigningAlgorithm::Rs256],
            algorithms => algorithms.to_vec(),
        };
        let jwt = JwtAuthenticators::new(accepted, dial);
        jwt.replace(jwt.prepare(&configuration.jwt)?);
        let webhook = match &options.token_webhook {
            None => None,
            Some(webhook) => {
                let client = KubeconfigClient::read(&webhook.config_file).await?;
                Some(TokenWebhook::new(client, webhook.version, webhook.cache_ttl))
            }
        };
        let anonymous = anonymous(options, &configuration, allows_everything)?;
        let authenticator = Authenticator::knowing(Known {
            tokens: TokenAuthenticator::new(authorizer),
            static_tokens: options.token_file.as_deref().map(StaticTokens::read).transpose()?,
            jwt: Some(jwt.clone()),
            webhook,
            front_proxies,
            anonymous,
        });
        let reload = file.map(|(path, bytes)| {
            let used = UsedAuthentication { jwt: jwt.clone(), anonymous: configuration.anonymous, own_issuers };
            FileFollower::new(AUTHENTICATION, path, file_follower::hash(&bytes), used)
        });
        Ok(Self { authenticator, jwt, reload })
    }
}

/// What a file says, or flags; and the file with its text.
type Configured = (AuthenticationConfiguration, Option<(PathBuf, Vec<u8>)>);

fn configuration_of(
    options: &AuthenticationOptions,
    own_issuers: &[String],
) -> Result<Configured, AuthenticationSetupError> {
    let Some(path) = &options.config_file else {
        let configuration = of_flags(&options.oidc)?;
        InvalidFields::refuse(validate(&configuration, own_issuers))?;
        return Ok((configuration, None));
    };
    if options.oidc.is_set() {
        return Err(AuthenticationSetupError::FileAndFlags);
    }
    let read = || {
        let bytes = configuration::read(path)?;
        let configuration = AuthenticationConfiguration::parse(&bytes)?;
        InvalidFields::refuse(validate(&configuration, own_issuers))?;
        Ok((configuration, Some((path.clone(), bytes))))
    };
    read().map_err(|source| AuthenticationSetupError::File { path: path.clone(), source })
}

fn anonymous(
    options: &AuthenticationOptions,
    configuration: &AuthenticationConfiguration,
    allows_everything: bool,
) -> Result<AnonymousConfiguration, AuthenticationSetupError> {
    let enabled = match (&configuration.anonymous, options.anonymous) {
        (Some(_), Some(_)) => return Err(AuthenticationSetupError::Anonymous),
        (Some(said), None) => return Ok(said.clone()),
        (None, flag) => flag.unwrap_or(true),
    };
    if enabled && allows_everything {
        tracing::warn!(
            "requests without a credential are not let in with the authorization mode AlwaysAllow; use another one"
        );
    }
    Ok(AnonymousConfiguration { enabled: enabled && !allows_everything, conditions: Vec::new() })
}

/// The flags `--oidc-…` as a configuration.
fn of_flags(oidc: &OidcOptions) -> Result<AuthenticationConfiguration, AuthenticationSetupError> {
    if !oidc.is_set() {
        return Ok(AuthenticationConfiguration::default());
    }
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (Some(url), Some(client)) = (said(&oidc.issuer_url), said(&oidc.client_id)) else {
        return Err(AuthenticationSetupError::OidcFlags);
    };
    let certificate_authority = match &oidc.ca_file {
        None => String::new(),
        Some(path) => fs::read_to_string(path)
            .map_err(|source| AuthenticationSetupError::OidcAuthorities { path: path.clone(), source })?,
    };
    let claim = said(&oidc.username_claim).unwrap_or_else(|| "sub".to_owned());
    let prefix = match oidc.username_prefix.as_deref().unwrap_or_default() {
        "-" => String::new(),
        // Names of several issuers must not be one another's.
        "" if claim != "email" => format!("{url}#"),
        prefix => prefix.to_owned(),
    };
    let groups = said(&oidc.groups_claim).map(|claim| ClaimMapping {
        claim,
        prefix: Some(oidc.groups_prefix.clone().unwrap_or_default()),
        expression: String::new(),
    });
    let required = oidc.required_claims.iter().map(|(claim, value)| ClaimValidationRule {
        claim: claim.clone(),
        required_value: value.clone(),
        ..ClaimValidationRule::default()
    });
    let jwt = JwtAuthenticatorConfiguration {
        issuer: IssuerConfiguration {
            url,
            certificate_authority,
            audiences: vec![client],
            ..IssuerConfiguration::default()
        },
        claim_validation_rules: required.collect(),
        claim_mappings: ClaimMappings {
            username: ClaimMapping { claim, prefix: Some(prefix), expression: String::new() },
            groups: groups.unwrap_or_default(),
            ..ClaimMappings::default()
        },
        user_validation_rules: Vec::new(),
    };
    Ok(AuthenticationConfiguration { jwt: vec![jwt], anonymous: None })
}

/// Who uses a changed file.
struct UsedAuthentication {
    jwt: JwtAuthenticators,
    /// As the first file said it: it cannot change while the service runs.
    anonymous: Option<AnonymousConfiguration>,
    own_issuers: Vec<String>,
}

#[async_trait::async_trait]
impl UsesFile for UsedAuthentication {
    async fn use_changed(&self, _: &Path, bytes: &[u8]) -> Result<(), UnusedFile> {
        Ok(self.replace(bytes).await?)
    }
}

impl UsedAuthentication {
    /// Only once the keys of all its issuers are known: those of the one before are good until then.
    async fn replace(&self, bytes: &[u8]) -> Result<(), ConfigurationReloadError> {
        let configuration = AuthenticationConfiguration::parse(bytes)?;
        let mut errors = validate(&configuration, &self.own_issuers);
        if configuration.anonymous != self.anonymous {
            errors.push(FieldError::forbidden("anonymous", "changed from initial configuration file"));
        }
        InvalidFields::refuse(errors).map_err(ConfigurationFileError::from)?;
        let issuers = self.jwt.prepare(&configuration.jwt).map_err(ConfigurationFileError::from)?;
        if !issuers.are_ready(READY_WITHIN).await {
            let away = issuers.not_ready().into_iter().map(str::to_owned).collect();
            return Err(ConfigurationReloadError::NotReady(away));
        }
        self.jwt.replace(issuers);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_what_a_file_would() {
        let flags = OidcOptions {
            issuer_url: Some("https://a".into()),
            client_id: Some("fairlead".into()),
            groups_claim: Some("groups".into()),
            required_claims: [("hd".to_owned(), "a.com".to_owned())].into(),
            ..OidcOptions::default()
        };
        let made = |flags: &OidcOptions| of_flags(flags).unwrap().jwt.remove(0);
        let jwt = made(&flags);
        assert_eq!((&*jwt.issuer.url, &jwt.issuer.audiences[..]), ("https://a", &["fairlead".to_owned()][..]));
        let username = &jwt.claim_mappings.username;
        assert_eq!((&*username.claim, username.prefix.as_deref()), ("sub", Some("https://a#")));
        assert_eq!(jwt.claim_mappings.groups.prefix.as_deref(), Some(""));
        assert_eq!(jwt.claim_validation_rules[0].claim, "hd");
        assert!(validate(&of_flags(&flags).unwrap(), &[]).is_empty());
        let prefix = |claim: &str, prefix: &str| {
            let (username_claim, username_prefix) = (Some(claim.to_owned()), Some(prefix.to_owned()));
            made(&OidcOptions { username_claim, username_prefix, ..flags.clone() }).claim_mappings.username.prefix
        };
        assert_eq!((prefix("email", ""), prefix("sub", "-")), (Some(String::new()), Some(String::new())));
        assert_eq!(prefix("sub", "oidc:").as_deref(), Some("oidc:"));
        assert!(of_flags(&OidcOptions { client_id: None, ..flags }).is_err());
        assert_eq!(of_flags(&OidcOptions::default()).unwrap(), AuthenticationConfiguration::default());
    }
}
