//! The AppArmor and seccomp profiles of a container: its own, or else the pod's.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, PodSpec, SeccompProfile};

use super::{Host, SecurityRefusal, refuse_if};

/// The seccomp filter that a container asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeccompSource<'a> {
    /// No filter.
    Unconfined,
    /// The filter that the runtime brings.
    RuntimeDefault,
    /// A file below the agent's directory of profiles.
    Localhost(&'a Path),
}

/// The AppArmor profile to ask the runtime for; `None` for its default one, or where the kernel has no AppArmor and
/// none is asked for.
pub fn app_armor(spec: &PodSpec, container: &Container, host: Host) -> Result<Option<String>, SecurityRefusal> {
    let own = container.security_context.as_ref().and_then(|security| security.app_armor_profile.as_ref());
    let pods = spec.security_context.as_ref().and_then(|security| security.app_armor_profile.as_ref());
    let Some(AppArmorProfile { type_, localhost_profile }) = own.or(pods) else { return Ok(None) };
    if type_ == "Unconfined" {
        return Ok(host.apparmor.then(|| "unconfined".to_owned()));
    }
    refuse_if(!host.apparmor, || SecurityRefusal::NoAppArmor(type_.clone()))?;
    match (type_.as_str(), localhost_profile.as_deref().unwrap_or_default()) {
        ("RuntimeDefault", _) => Ok(None),
        ("Localhost", "") => Err(SecurityRefusal::NoLocalhostProfile),
        ("Localhost", profile) => Ok(Some(profile.to_owned())),
        _ => Err(SecurityRefusal::UnknownType { field: "appArmorProfile", type_: type_.clone() }),
    }
}

/// The seccomp filter of a container: its own, or else the pod's.
pub fn seccomp<'a>(spec: &'a PodSpec, container: &'a Container) -> Result<SeccompSource<'a>, SecurityRefusal> {
    let own = container.security_context.as_ref().and_then(|security| security.seccomp_profile.as_ref());
    let pods = spec.security_context.as_ref().and_then(|security| security.seccomp_profile.as_ref());
    let Some(SeccompProfile { type_, localhost_profile }) = own.or(pods) else { return Ok(SeccompSource::Unconfined) };
    match type_.as_str() {
        "Unconfined" => Ok(SeccompSource::Unconfined),
        "RuntimeDefault" => Ok(SeccompSource::RuntimeDefault),
        "Localhost" => {
            let path = Path::new(localhost_profile.as_deref().unwrap_or_default());
            let descends = path.components().all(|part| matches!(part, Component::Normal(_)));
            let is_outside = path.as_os_str().is_empty() || !descends;
            refuse_if(is_outside, || SecurityRefusal::ProfileOutside(path.to_owned()))?;
            Ok(SeccompSource::Localhost(path))
        }
        _ => Err(SecurityRefusal::UnknownType { field: "seccompProfile", type_: type_.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_containers_own_profile_comes_before_its_pods() {
        let spec = json!({ "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } }, "containers": [
            { "name": "own", "securityContext": { "seccompProfile": { "type": "Localhost", "localhostProfile": "a/b.json" } } },
            { "name": "pods" },
        ] });
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(seccomp(&spec, &spec.containers[0]), Ok(SeccompSource::Localhost(Path::new("a/b.json"))));
        assert_eq!(seccomp(&spec, &spec.containers[1]), Ok(SeccompSource::RuntimeDefault));
    }
}
