//! What becomes of changed configuration files of authentication and authorisation: a good one is used.

use std::time::Duration;

use crate::{
    auth::configuration::ConfigurationFileError,
    file_follower::{FollowedFile, ReloadMetrics, UnusedFile},
    webhook::KubeconfigSetupError,
};

const EVERY: Duration = Duration::from_secs(10);

/// `--authentication-config`
pub const AUTHENTICATION: FollowedFile = FollowedFile {
    what: "authentication configuration",
    every: EVERY,
    metrics: Some(ReloadMetrics {
        subject: "authentication",
        reloads_help: "Total number of automatic reloads of authentication configuration split by status and apiserver \
                   identity.",
        last_reload_help: "Timestamp of the last automatic reload of authentication configuration split by status and \
                       apiserver identity.",
    }),
};

/// `--authorization-config`
pub const AUTHORIZATION: FollowedFile = FollowedFile {
    what: "authorization configuration",
    every: EVERY,
    metrics: Some(ReloadMetrics {
        subject: "authorization",
        reloads_help: "Total number of automatic reloads of authorization configuration split by status and apiserver \
                   identity.",
        last_reload_help: "Timestamp of the last automatic reload of authorization configuration split by status and \
                       apiserver identity.",
    }),
};

/// Why a changed file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationReloadError {
    /// It will never be good.
    #[error(transparent)]
    Refused(#[from] ConfigurationFileError),
    /// A file that it names is not good now.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigSetupError),
    /// Its issuers do not answer.
    #[error("oidc: authenticators for the issuers {0:?} are not initialized")]
    NotReady(Vec<String>),
}

impl From<ConfigurationReloadError> for UnusedFile {
    fn from(error: ConfigurationReloadError) -> Self {
        match error {
            ConfigurationReloadError::Refused(_) => Self::for_good(error),
            ConfigurationReloadError::Kubeconfig(_) | ConfigurationReloadError::NotReady(_) => Self::for_now(error),
        }
    }
}
