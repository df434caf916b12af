//! Profiles of AppArmor and SELinux: no pod runs without one, or with rights of its own choice.

use serde_json::Value;

use super::{PodView, Texts, Violation, plural, quoted};
use crate::kinds::reading::{entries, text};

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The profile of the runtime, or one of the host.
pub fn app_armor(pod: PodView<'_>) -> Option<Violation> {
    let mut types = Texts::new();
    let mut setters = pod.setters(|context| {
        let profile = &context["appArmorProfile"];
        let kind = text(profile, "type");
        let wrong = !profile.is_null() && !matches!(kind, "RuntimeDefault" | "Localhost");
        types.extend(wrong.then_some(kind));
        wrong
    });
    let allowed = |value: &str| matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
    let mut annotations: Vec<String> = entries(pod.annotations)
        .map(|(key, value)| (key, value.as_str().unwrap_or_default()))
        .filter(|(key, value)| key.starts_with(APP_ARMOR_ANNOTATION) && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort_unstable();
    if !annotations.is_empty() {
        setters.push(plural(annotations.len(), "annotation", "annotations").to_owned());
    }
    (!setters.is_empty()).then_some(())?;
    let values: Vec<&str> = types.into_iter().chain(annotations.iter().map(String::as_str)).collect();
    let reason = plural(values.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles");
    let detail = format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values));
    Violation::new(reason, detail)
}

/// The types that containers have.
pub fn se_linux_0(pod: PodView<'_>) -> Option<Violation> {
    se_linux(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

/// From 1.31 on with that of engines in containers.
pub fn se_linux_31(pod: PodView<'_>) -> Option<Violation> {
    se_linux(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn se_linux(pod: PodView<'_>, allowed: &[&str]) -> Option<Violation> {
    let (mut types, mut user, mut role) = (Texts::new(), false, false);
    let setters = pod.setters(|context| {
        let options: &Value = &context["seLinuxOptions"];
        let kind = text(options, "type");
        let wrong_type = !allowed.contains(&kind);
        types.extend(wrong_type.then_some(kind));
        let (sets_user, sets_role) = (!text(options, "user").is_empty(), !text(options, "role").is_empty());
        (user, role) = (user || sets_user, role || sets_role);
        wrong_type || sets_user || sets_role
    });
    (!setters.is_empty()).then_some(())?;
    let mut wrong = Vec::new();
    if !types.is_empty() {
        wrong.push(format!("{} {}", plural(types.len(), "type", "types"), quoted(&types)));
    }
    wrong.extend(user.then(|| "user may not be set".to_owned()));
    wrong.extend(role.then(|| "role may not be set".to_owned()));
    let detail =
        format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.join(" and "), wrong.join("; "));
    Violation::new("seLinuxOptions", detail)
}
