//! Whether an image is pulled: policy and what its failure is called.

use k8s_openapi::api::core::v1::Container;

/// When a container's image is pulled: Kubernetes' `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
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

fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    match image.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag == "latest",
        _ => true,
    }
}

/// Host that an image comes from, as pull secrets name it: `docker.io` where the reference has none.
pub fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
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
        assert_eq!(policy("nginx@sha256:00"), PullPolicy::IfNotPresent);
    }

    #[test]
    fn a_reference_without_host_comes_from_docker_io() {
        assert_eq!(registry("hello:v1"), "docker.io");
        assert_eq!(registry("library/hello"), "docker.io");
        assert_eq!(registry("localhost:5000/hello:v1"), "localhost:5000");
        assert_eq!(registry("quay.io/a/b"), "quay.io");
    }
}
