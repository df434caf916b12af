//! Why a quota does not allow a write, in the words of Kubernetes.

use super::super::amounts::{self, Amounts};

/// What a ResourceQuota has against a write.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// A container does not say how much it takes of what is limited.
    #[error("failed quota: {quota}: {why}")]
    Unspecified {
        /// Its name.
        quota: String,
        /// What is to be specified, for which containers.
        why: String,
    },
    /// It was not counted yet how much is used; its controller is about to.
    #[error("status unknown for quota: {quota}, resources: {}", .resources.join(","))]
    Uncounted {
        /// Its name.
        quota: String,
        /// The amounts that the write is about.
        resources: Vec<String>,
    },
    /// The object takes less than nothing.
    #[error("quota usage is negative for resource(s): {}", .resources.join(","))]
    Negative {
        /// The amounts of which it does.
        resources: Vec<String>,
    },
    /// Too much would be used. The amounts are those of which it would.
    #[error(
        "exceeded quota: {quota}, requested: {}, used: {}, limited: {}",
        amounts::text(.requested),
        amounts::text(.used),
        amounts::text(.limited)
    )]
    Exceeded {
        /// Its name.
        quota: String,
        /// By the write.
        requested: Amounts,
        /// Before it.
        used: Amounts,
        /// By the quota.
        limited: Amounts,
    },
    /// The stored quota cannot be read.
    #[error(transparent)]
    Damaged(#[from] DamagedObject),
}

/// A stored object that is not JSON.
#[derive(Debug, thiserror::Error)]
#[error("the stored object {name} is damaged: {error}")]
pub struct DamagedObject {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub error: serde_json::Error,
}
