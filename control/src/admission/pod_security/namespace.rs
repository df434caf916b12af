//! What changed labels of a namespace mean: they must be readable, and who makes them stricter is told which of the
//! pods that are there they forbid.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    checks::PodView,
    invalid_labels,
    level::{LevelVersion, NamespaceLevels},
    registry,
};
use crate::{
    kinds::reading::entries,
    request::WriteRequest,
    status::Status,
    store::{Object, Snapshot},
    warnings,
};

/// No more pods are looked at.
const MOST_PODS: usize = 3000;
/// Nor for longer.
const LONGEST: Duration = Duration::from_secs(1);

/// Refuses labels that mean nothing; warns of pods that a stricter level forbids.
pub fn validate(request: &WriteRequest<'_>, namespace: &Value) -> Result<(), Status> {
    let labels = &namespace["metadata"]["labels"];
    let old_labels = request.old.map(|old| &old["metadata"]["labels"]);
    if old_labels == Some(labels) {
        return Ok(());
    }
    let (policy, errors) = of(labels);
    let Some((old, old_errors)) = old_labels.map(of) else {
        return if errors.is_empty() { Ok(()) } else { Err(invalid_labels(request, &errors)) };
    };
    if !errors.is_empty() && errors != old_errors {
        return Err(invalid_labels(request, &errors));
    }
    if is_stricter(policy.enforce, old.enforce) {
        warn(request.snapshot, request.name, policy.enforce);
    }
    Ok(())
}

fn of(labels: &Value) -> (NamespaceLevels, Vec<crate::kinds::FieldError>) {
    let mut labels: Vec<(&str, &str)> =
        entries(labels).map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())).collect();
    labels.sort_unstable();
    NamespaceLevels::of_labels(&labels)
}

/// Whether pods that were allowed may be forbidden now.
fn is_stricter(new: LevelVersion, old: LevelVersion) -> bool {
    new != old && !new.is_privileged() && (new.version != old.version || new.level > old.level)
}

fn warn(snapshot: &Snapshot, namespace: &str, enforce: LevelVersion) {
    let prefix = format!("{namespace}/");
    let pods: Vec<&Object> = prioritized(snapshot.list("pods", &prefix, None).map(|(_, pod)| &**pod));
    let (begun, mut checked) = (Instant::now(), 0);
    // The first pod by name and the count of those that violate the level in the same way.
    let mut found: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in pods.iter().take(MOST_PODS) {
        checked += 1;
        if let Some(reason) = reason(pod, enforce) {
            let (first, count) = found.entry(reason).or_insert((pod.header().name(), 0));
            *first = (*first).min(pod.header().name());
            *count += 1;
        }
        if begun.elapsed() > LONGEST {
            break;
        }
    }
    if checked < pods.len() {
        warnings::add(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {} existing pods",
            pods.len()
        ));
    }
    if !found.is_empty() {
        warnings::add(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    for warning in told(&found) {
        warnings::add(warning);
    }
}

/// Pods of one controller are alike: the first of each goes before the others.
fn prioritized<'a>(pods: impl Iterator<Item = &'a Object>) -> Vec<&'a Object> {
    let (mut seen, mut first, mut alike) = (BTreeSet::new(), Vec::new(), Vec::new());
    for pod in pods {
        let controller = pod.header().owners().find(|owner| owner.controller);
        match controller.is_none_or(|controller| seen.insert(controller.uid)) {
            true => first.push(pod),
            false => alike.push(pod),
        }
    }
    first.extend(alike);
    first
}

fn reason(pod: &Object, enforce: LevelVersion) -> Option<String> {
    let value: Value = serde_json::from_slice(&pod.json_without_managers())
        .inspect_err(|error| tracing::error!(%error, pod = pod.header().name(), "a stored pod is damaged"))
        .ok()?;
    registry::evaluate(enforce, PodView::of(&value)).reason()
}

fn told(found: &BTreeMap<String, (&str, usize)>) -> Vec<String> {
    let words = |(reason, (first, count)): (&String, &(&str, usize))| match count {
        1 => format!("{first}: {reason}"),
        2 => format!("{first} (and 1 other pod): {reason}"),
        _ => format!("{first} (and {} other pods): {reason}", count - 1),
    };
    let mut told: Vec<String> = found.iter().map(words).collect();
    told.sort_unstable();
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_looked_at_when_more_is_forbidden() {
        let of = |level: &str, version: &str| {
            let labels = json!({"pod-security.kubernetes.io/enforce": level,
                "pod-security.kubernetes.io/enforce-version": version});
            super::of(&labels).0.enforce
        };
        assert!(is_stricter(of("baseline", "latest"), of("privileged", "latest")));
        assert!(is_stricter(of("restricted", "latest"), of("baseline", "latest")));
        assert!(is_stricter(of("baseline", "v1.24"), of("restricted", "latest")));
        assert!(!is_stricter(of("baseline", "latest"), of("restricted", "latest")));
        assert!(!is_stricter(of("privileged", "v1.1"), of("restricted", "latest")));
        assert!(!is_stricter(of("baseline", "latest"), of("baseline", "latest")));
    }

    #[test]
    fn alike_pods_are_told_of_once() {
        let found = BTreeMap::from([
            ("privileged".to_owned(), ("b", 1)),
            ("hostPort".to_owned(), ("c", 2)),
            ("host namespaces".to_owned(), ("a", 4)),
        ]);
        assert_eq!(
            told(&found),
            ["a (and 3 other pods): host namespaces", "b: privileged", "c (and 1 other pod): hostPort"]
        );
    }
}
