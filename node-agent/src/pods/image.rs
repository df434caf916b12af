//! Whether an image is pulled: policy and what its failure is called.

use k8s_openapi::api::core::v1::Container;
use oci_spec::distribution::Reference;

/// When a container's image is pulled: Kubernetes' `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// At each start: the registry says whether the local copy is still right.
    Always,
    /// Only where the node does not have it.
    IfNotPresent,
    /// It must be on the node.
    Never,
}

impl PullPolicy {
    /// The container's own, or `Always` for an image of the tag `latest` and `IfNotPresent` for others.
    pub fn of(container: &Container) -> Self {
        match container.image_pull_policy.as_deref() {
            Some("Always") => Self::Always,
            Some("IfNotPresent") => Self::IfNotPresent,
            Some("Never") => Self::Never,
            _ if is_latest(container.image.as_deref().unwrap_or_default()) => Self::Always,
            _ => Self::IfNotPresent,
        }
    }
}

/// Whether a reference means the tag `latest`: by name, or because it has neither tag nor digest.
fn is_latest(image: &str) -> bool {
    image.parse::<Reference>().is_ok_and(|reference| reference.digest().is_none() && reference.tag() == Some("latest"))
}

/// Host that an image comes from, as pull secrets name it: `docker.io` where the reference has none. Nothing where the
/// text is no reference.
pub fn registry(image: &str) -> Option<String> {
    image.parse::<Reference>().ok().map(|reference| reference.registry().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_policy_the_latest_is_always_pulled_and_a_tag_or_digest_only_when_absent() {
        let policy = |image: &str| PullPolicy::of(&Container { image: Some(image.into()), ..Default::default() });
        assert_eq!(policy("nginx"), PullPolicy::Always);
        assert_eq!(policy("localhost:5000/nginx"), PullPolicy::Always);
        assert_eq!(policy("nginx:latest"), PullPolicy::Always);
        assert_eq!(policy("hello:v1"), PullPolicy::IfNotPresent);
        let digest = "0".repeat(64);
        assert_eq!(policy(&format!("nginx@sha256:{digest}")), PullPolicy::IfNotPresent);
        assert_eq!(policy("Not A Reference"), PullPolicy::IfNotPresent);
    }

    #[test]
    fn a_reference_without_host_comes_from_docker_io() {
        assert_eq!(registry("hello:v1").as_deref(), Some("docker.io"));
        assert_eq!(registry("library/hello").as_deref(), Some("docker.io"));
        assert_eq!(registry("localhost:5000/hello:v1").as_deref(), Some("localhost:5000"));
        assert_eq!(registry("quay.io/a/b").as_deref(), Some("quay.io"));
    }
}
