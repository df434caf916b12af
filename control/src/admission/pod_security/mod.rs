//! PodSecurity: which pods a namespace takes, by the levels that its labels name (`privileged`, `baseline`,
//! `restricted`), each as a version of Kubernetes defined it.
//!
//! ```text
//! labels of the namespace ──level──▶ Policy { enforce, audit, warn }
//!                                       │ each a level at a version
//! pod, or template of a workload ──registry──▶ checks ──▶ Violations
//!                                                          enforce: the pod is refused; audit: noted; warn: told
//! ```
//!
//! | file | what it decides |
//! |---|---|
//! | `level` | what the labels of a namespace mean |
//! | `registry` | which checks belong to a level at a version |
//! | `checks` | what each check refuses |
//! | `namespace` | what changed labels mean for the pods that are there |
//!
//! Source: `k8s.io/pod-security-admission`, whose words these are. Nothing is exempt, as in Kubernetes without a
//! configuration of the plugin.

mod checks;
mod level;
mod namespace;
mod registry;

use serde_json::Value;

use self::{
    checks::PodView,
    level::{LevelVersion, NamespaceLevels},
    registry::Violations,
};
use super::plugins::{Plugin, Validate};
use crate::{
    admission_plugins::PluginName,
    audit::current,
    kinds::{
        FieldError,
        reading::{first_by_name, items, text},
    },
    request::WriteRequest,
    status::{Status, Subject},
    warnings,
};

/// Pods keep to the level of their namespace.
pub static PLUGIN: Plugin = Plugin {
    validate: Some(Validate::Now(|context, object| validate(context.request, object))),
    ..Plugin::named(PluginName::PodSecurity)
};

/// Subresources of a pod that change nothing that is checked.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// Refuses pods that the level of their namespace forbids. Warns of templates whose pods would be refused, and of pods
/// that are there where a namespace gets a stricter level.
fn validate(request: &WriteRequest<'_>, object: &Value) -> Result<(), Status> {
    match (&*request.kind.group, &*request.kind.plural, request.subresource) {
        ("", "namespaces", None) => namespace::validate(request, object),
        ("", "pods", subresource) if !subresource.is_some_and(|segment| IGNORED.contains(&segment)) => {
            validate_pod(request, object)
        }
        (group, plural, None) => {
            if let Some(template) = template(group, plural, object) {
                warn_of_template(request, template);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The template that a workload makes its pods from.
fn template<'a>(group: &str, plural: &str, object: &'a Value) -> Option<&'a Value> {
    let template = match (group, plural) {
        ("", "podtemplates") => &object["template"],
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => &object["spec"]["template"],
        ("batch", "cronjobs") => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    };
    template.is_object().then_some(template)
}

/// What the labels of the request's namespace mean, with what is wrong with them.
fn policy(request: &WriteRequest<'_>) -> (NamespaceLevels, Vec<FieldError>) {
    let namespace = request.snapshot.get(super::namespace::RESOURCE, request.namespace.unwrap_or_default());
    namespace
        .map_or_else(Default::default, |found| NamespaceLevels::of_labels(&found.header().labels().collect::<Vec<_>>()))
}

fn validate_pod(request: &WriteRequest<'_>, pod: &Value) -> Result<(), Status> {
    let (policy, errors) = policy(request);
    if errors.is_empty() && policy.is_fully_privileged() {
        annotate(ENFORCE_POLICY, || policy.enforce.to_string());
        return Ok(());
    }
    if request.old.is_some_and(|old| !is_significant(&pod["spec"], &old["spec"])) {
        return Ok(());
    }
    annotate_errors(&errors);
    annotate(ENFORCE_POLICY, || policy.enforce.to_string());
    let view = PodView::of(pod);
    let enforced = registry::evaluate(policy.enforce, view);
    tell(&policy, policy.audit, &enforced, view, |level, detail| {
        tracing::info!(
            namespace = request.namespace,
            name = request.name,
            "pod-security.kubernetes.io/audit-violations: would violate PodSecurity \"{level}\": {detail}"
        );
        annotate(AUDIT_VIOLATIONS, || format!("would violate PodSecurity \"{level}\": {detail}"));
    });
    if let Some(detail) = enforced.detail() {
        let why = format!("violates PodSecurity \"{}\": {detail}", policy.enforce);
        return Err(Status::forbidden(request.subject(), &why));
    }
    tell(&policy, policy.warn, &enforced, view, |level, detail| {
        warnings::add(format!("would violate PodSecurity \"{level}\": {detail}"));
    });
    Ok(())
}

/// Tells how a pod violates a level; that which is enforced was evaluated already.
fn tell(
    policy: &NamespaceLevels,
    level: LevelVersion,
    enforced: &Violations,
    pod: PodView<'_>,
    tell: impl FnOnce(LevelVersion, String),
) {
    let detail = match level == policy.enforce {
        true => enforced.detail(),
        false => registry::evaluate(level, pod).detail(),
    };
    if let Some(detail) = detail {
        tell(level, detail);
    }
}

fn warn_of_template(request: &WriteRequest<'_>, template: &Value) {
    let (policy, errors) = policy(request);
    if errors.is_empty() && policy.warn.is_privileged() && policy.audit.is_privileged() {
        return;
    }
    annotate_errors(&errors);
    let view = PodView::of(template);
    if let Some(detail) = registry::evaluate(policy.audit, view).detail() {
        tracing::info!(
            namespace = request.namespace,
            kind = &*request.kind.kind,
            name = request.name,
            "pod-security.kubernetes.io/audit-violations: would violate PodSecurity \"{}\": {detail}",
            policy.audit
        );
        annotate(AUDIT_VIOLATIONS, || format!("would violate PodSecurity \"{}\": {detail}", policy.audit));
    }
    if let Some(detail) = registry::evaluate(policy.warn, view).detail() {
        warnings::add(format!("would violate PodSecurity \"{}\": {detail}", policy.warn));
    }
}

/// What audit events note.
const ENFORCE_POLICY: &str = "enforce-policy";
const AUDIT_VIOLATIONS: &str = "audit-violations";

fn annotate(key: &str, value: impl FnOnce() -> String) {
    current::annotate(&format!("pod-security.kubernetes.io/{key}"), value);
}

fn annotate_errors(errors: &[FieldError]) {
    if !errors.is_empty() {
        let all: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
        let all = if let [one] = all.as_slice() { one.clone() } else { format!("[{}]", all.join(", ")) };
        annotate("error", || format!("Failed to parse policy: {all}"));
    }
}

/// Whether an update of a pod changes what is checked: a container is added, or has another image.
fn is_significant(new: &Value, old: &Value) -> bool {
    let image = |container: &Value| text(container, "image").to_owned();
    let differ = |list: &str| {
        let (new, old) = (items(&new[list]), items(&old[list]));
        new.len() != old.len() || new.zip(old).any(|(new, old)| image(new) != image(old))
    };
    let before = first_by_name(items(&old["ephemeralContainers"]));
    let changed = |container: &Value| {
        let before = before.get(text(container, "name"));
        before.is_none_or(|before| image(before) != image(container))
    };
    differ("containers") || differ("initContainers") || items(&new["ephemeralContainers"]).any(changed)
}

/// 422 about labels of a namespace.
fn invalid_labels(request: &WriteRequest<'_>, errors: &[FieldError]) -> Status {
    Status::invalid(Subject { group: &request.kind.group, resource: &request.kind.kind, name: request.name }, errors)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_update_is_checked_when_it_brings_another_image() {
        let old = json!({"containers": [{"name": "a", "image": "x"}],
            "ephemeralContainers": [{"name": "e", "image": "y"}]});
        assert!(!is_significant(&old, &old));
        let with = |path: &str, value: Value| {
            let mut new = old.clone();
            *new.pointer_mut(path).unwrap() = value;
            is_significant(&new, &old)
        };
        assert!(with("/containers/0/image", json!("z")));
        assert!(with("/ephemeralContainers/0/image", json!("z")));
        assert!(with("/ephemeralContainers/0/name", json!("new")));
        assert!(with("/containers", json!([])));
        assert!(!with("/ephemeralContainers", json!([])));
    }

    #[test]
    fn the_pods_of_every_workload_are_found() {
        let template = json!({"spec": {"containers": []}});
        let workload = json!({"spec": {"template": template}});
        for (group, plural) in [("apps", "deployments"), ("batch", "jobs"), ("", "replicationcontrollers")] {
            assert_eq!(super::template(group, plural, &workload), Some(&template), "{plural}");
        }
        let cron = json!({"spec": {"jobTemplate": {"spec": {"template": template}}}});
        assert_eq!(super::template("batch", "cronjobs", &cron), Some(&template));
        assert_eq!(super::template("", "podtemplates", &json!({"template": template})), Some(&template));
        assert_eq!(super::template("example.com", "deployments", &workload), None);
        assert_eq!(super::template("", "replicationcontrollers", &json!({"spec": {}})), None);
    }
}
