//! The flags that say who may come in and who decides what they may do, by kube-apiserver's names. Their defaults stand
//! in [`fairlead_control::auth::options`].

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use fairlead_control::auth::{
    jwt::key::SigningAlgorithm,
    options::{
        AuthenticationOptions, AuthorizationMode, AuthorizationOptions, OidcOptions, RequestHeaderOptions,
        TokenWebhookOptions,
    },
    outside::review::OutsideReviewVersion,
};

use super::flag_values::{parse_bool, parse_duration};

/// How clients prove who they are, beside certificates and tokens of the cluster's own.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthenticationArgs {
    /// AuthenticationConfiguration (apiserver.config.k8s.io/v1) that says which issuers' tokens are taken, and which
    /// requests need no credential; it is used as it changes
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// Whether requests without a credential are let in, as system:anonymous [default: true]
    #[arg(long, value_name = "BOOL", value_parser = parse_bool)]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub anonymous_auth: Option<bool>,
    /// Issuer of OpenID Connect tokens that are taken, https://…
    #[arg(long, value_name = "URL")]
    pub oidc_issuer_url: Option<String>,
    /// Audience that those tokens must be for
    #[arg(long, value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// Claim with the user's name [default: sub]
    #[arg(long, value_name = "CLAIM")]
    pub oidc_username_claim: Option<String>,
    /// What stands before the user's name, - for nothing [default: the issuer's URL and #, but nothing for email]
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true)]
    pub oidc_username_prefix: Option<String>,
    /// Claim with the user's groups
    #[arg(long, value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// What stands before each group
    #[arg(long, value_name = "PREFIX")]
    pub oidc_groups_prefix: Option<String>,
    /// Claim that a token must have, with its value; may be given more than once
    #[arg(long, value_name = "CLAIM=VALUE", action = clap::ArgAction::Append, value_parser = parse_claim)]
    pub oidc_required_claim: Vec<(String, String)>,
    /// Authorities that sign for the issuer's server [default: those that the system trusts]
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
    /// Algorithms by which tokens may be signed [default: RS256]
    #[arg(long, value_name = "ALG,...", value_delimiter = ',', action = clap::ArgAction::Append)]
    #[arg(value_parser = parse_algorithm)]
    pub oidc_signing_algs: Vec<SigningAlgorithm>,
    /// Kubeconfig of a server that is asked whose a bearer token is
    #[arg(long, value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of the TokenReview that it is sent, v1 or v1beta1 [default: v1beta1]
    #[arg(long, value_name = "VERSION")]
    pub authentication_token_webhook_version: Option<OutsideReviewVersion>,
    /// How long its answers are kept [default: 2m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub authentication_token_webhook_cache_ttl: Option<Duration>,
    /// File with lines of token,user,uid,"group1,group2"; it is read once
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// Authorities that sign for front proxies, which say in headers who asks
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of their certificates [default: any]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', action = clap::ArgAction::Append)]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name, such as X-Remote-User
    #[arg(long, value_name = "HEADER,...", value_delimiter = ',', action = clap::ArgAction::Append)]
    pub requestheader_username_headers: Vec<String>,
    /// Headers with a group each, such as X-Remote-Group
    #[arg(long, value_name = "HEADER,...", value_delimiter = ',', action = clap::ArgAction::Append)]
    pub requestheader_group_headers: Vec<String>,
    /// What headers with anything else begin with, such as X-Remote-Extra-
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',', action = clap::ArgAction::Append)]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Headers with the uid, such as X-Remote-Uid
    #[arg(long, value_name = "HEADER,...", value_delimiter = ',', action = clap::ArgAction::Append)]
    pub requestheader_uid_headers: Vec<String>,
}

/// Who decides what clients may do.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Authorization")]
pub struct AuthorizationArgs {
    /// AuthorizationConfiguration (apiserver.config.k8s.io/v1) that says who decides, webhooks included; it is used as
    /// it changes
    #[arg(long, value_name = "FILE")]
    pub authorization_config: Option<PathBuf>,
    /// Who decides, in order: Node, RBAC, Webhook, AlwaysAllow or AlwaysDeny [default: Node,RBAC]
    #[arg(long, value_name = "MODE,...", value_delimiter = ',', action = clap::ArgAction::Append)]
    pub authorization_mode: Vec<AuthorizationMode>,
    /// Kubeconfig of the server that decides, with --authorization-mode=Webhook
    #[arg(long, value_name = "FILE")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// Version of the SubjectAccessReview that it is sent, v1 or v1beta1 [default: v1beta1]
    #[arg(long, value_name = "VERSION")]
    pub authorization_webhook_version: Option<OutsideReviewVersion>,
    /// How long it is remembered that something is allowed [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub authorization_webhook_cache_authorized_ttl: Option<Duration>,
    /// How long it is remembered that something is not [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
}

impl AuthenticationArgs {
    /// What the flags say.
    pub fn options(&self) -> AuthenticationOptions {
        let set = self.clone();
        AuthenticationOptions {
            config_file: set.authentication_config,
            anonymous: set.anonymous_auth,
            oidc: OidcOptions {
                issuer_url: set.oidc_issuer_url,
                client_id: set.oidc_client_id,
                username_claim: set.oidc_username_claim,
                username_prefix: set.oidc_username_prefix,
                groups_claim: set.oidc_groups_claim,
                groups_prefix: set.oidc_groups_prefix,
                required_claims: set.oidc_required_claim.into_iter().collect::<BTreeMap<_, _>>(),
                ca_file: set.oidc_ca_file,
                signing_algs: set.oidc_signing_algs,
            },
            token_webhook: self.token_webhook(),
            token_file: set.token_auth_file,
            request_header: RequestHeaderOptions {
                client_ca_file: set.requestheader_client_ca_file,
                allowed_names: set.requestheader_allowed_names,
                username_headers: set.requestheader_username_headers,
                group_headers: set.requestheader_group_headers,
                extra_headers_prefix: set.requestheader_extra_headers_prefix,
                uid_headers: set.requestheader_uid_headers,
            },
        }
    }

    fn token_webhook(&self) -> Option<TokenWebhookOptions> {
        let mut options = TokenWebhookOptions::new(self.authentication_token_webhook_config_file.clone()?);
        options.version = self.authentication_token_webhook_version.unwrap_or(options.version);
        options.cache_ttl = self.authentication_token_webhook_cache_ttl.unwrap_or(options.cache_ttl);
        Some(options)
    }
}

impl AuthorizationArgs {
    /// What the flags say.
    pub fn options(&self) -> AuthorizationOptions {
        let set = self.clone();
        AuthorizationOptions {
            config_file: set.authorization_config,
            modes: set.authorization_mode,
            webhook_config_file: set.authorization_webhook_config_file,
            webhook_version: set.authorization_webhook_version,
            webhook_cache_authorized_ttl: set.authorization_webhook_cache_authorized_ttl,
            webhook_cache_unauthorized_ttl: set.authorization_webhook_cache_unauthorized_ttl,
        }
    }
}

/// A claim without a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a required claim is written CLAIM=VALUE")]
struct ClaimArgError;

fn parse_claim(text: &str) -> Result<(String, String), ClaimArgError> {
    let (claim, value) = text.split_once('=').filter(|(claim, _)| !claim.is_empty()).ok_or(ClaimArgError)?;
    Ok((claim.to_owned(), value.to_owned()))
}

/// An algorithm that is none, or none that is safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("oidc: unsupported signing alg: {0:?}")]
struct AlgorithmArgError(String);

fn parse_algorithm(text: &str) -> Result<SigningAlgorithm, AlgorithmArgError> {
    SigningAlgorithm::of(text).ok_or_else(|| AlgorithmArgError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Verb {
        #[command(flatten)]
        authentication: AuthenticationArgs,
        #[command(flatten)]
        authorization: AuthorizationArgs,
    }

    fn parse(flags: &[&'static str]) -> Result<Verb, clap::Error> {
        Verb::try_parse_from(["verb"].iter().chain(flags))
    }

    #[test]
    fn flags_are_those_of_kube_apiserver() {
        let verb = parse(&[
            "--anonymous-auth=false",
            "--oidc-issuer-url=https://a",
            "--oidc-username-prefix=-",
            "--oidc-required-claim=a=b=c",
            "--oidc-signing-algs=RS256,ES512",
            "--authentication-token-webhook-config-file=/k",
            "--requestheader-allowed-names=a,b",
            "--authorization-mode=Node,Webhook,RBAC",
            "--authorization-webhook-version=v1",
        ])
        .unwrap();
        let options = verb.authentication.options();
        assert_eq!((options.anonymous, options.oidc.username_prefix.as_deref()), (Some(false), Some("-")));
        assert_eq!(options.oidc.required_claims["a"], "b=c");
        assert_eq!(options.oidc.signing_algs, [SigningAlgorithm::Rs256, SigningAlgorithm::Es512]);
        let webhook = options.token_webhook.unwrap();
        assert_eq!((webhook.version, webhook.cache_ttl), (OutsideReviewVersion::V1beta1, Duration::from_secs(120)));
        assert_eq!(options.request_header.allowed_names, ["a", "b"]);
        let decides = verb.authorization.options();
        use AuthorizationMode::{Node, Rbac, Webhook};
        assert_eq!(
            (decides.modes, decides.webhook_version),
            (vec![Node, Webhook, Rbac], Some(OutsideReviewVersion::V1))
        );
        let none = parse(&[]).unwrap();
        assert!(!none.authentication.options().oidc.is_set() && none.authorization.options().modes.is_empty());
    }

    #[test]
    fn what_flags_cannot_mean_is_refused_with_a_reason() {
        for (flag, why) in [
            ("--oidc-signing-algs=HS256", "oidc: unsupported signing alg: \"HS256\""),
            ("--oidc-signing-algs=none", "oidc: unsupported signing alg: \"none\""),
            ("--oidc-required-claim=a", "a required claim is written CLAIM=VALUE"),
            ("--authorization-mode=ABAC", "authorization-mode \"ABAC\" is not a valid mode"),
            ("--authentication-token-webhook-version=v2", "supported versions are v1 and v1beta1"),
        ] {
            let error = parse(&[flag]).err().expect(flag).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
