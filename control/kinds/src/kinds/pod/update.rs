//! What of a Pod may change after it was created: images, a shorter deadline, more tolerations, fewer scheduling gates,
//! and for a pod that is held by such a gate, closer rules for its node.

use std::collections::HashSet;

use serde_json::Value;

use crate::kinds::{
    FieldError,
    persistent_volume_claim::changed_fields,
    reading::{entries, is_empty, items, same, text},
};

const MUTABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 \
    if it was previously negative)";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Why `old` may not become `new`.
pub fn pod(new: &Value, old: &Value) -> Vec<FieldError> {
    let (new, old) = (&new["spec"], &old["spec"]);
    let mut errors = Vec::new();
    for list in ["containers", "initContainers"] {
        if items(&new[list]).len() != items(&old[list]).len() {
            let why = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(format!("spec.{list}"), why));
            return errors;
        }
    }
    const DEADLINE: &str = "spec.activeDeadlineSeconds";
    let (deadline, before) = (&new["activeDeadlineSeconds"], &old["activeDeadlineSeconds"]);
    match (deadline.as_i64(), before.as_i64()) {
        (Some(now), Some(was)) if now > was => {
            let why = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(DEADLINE, deadline, why));
            return errors;
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(DEADLINE, deadline, why));
        }
        _ => {}
    }
    // A toleration may be given another time to bear a taint, but not be taken away.
    let taint = |toleration: &Value| ["key", "operator", "value", "effect"].map(|field| toleration[field].clone());
    let tolerated: HashSet<[Value; 4]> = items(&new["tolerations"]).map(taint).collect();
    if !items(&old["tolerations"]).all(|before| tolerated.contains(&taint(before))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", why));
    }
    let gates: HashSet<&str> = items(&old["schedulingGates"]).map(|gate| text(gate, "name")).collect();
    let added = items(&new["schedulingGates"]).enumerate().filter(|(_, gate)| !gates.contains(text(gate, "name")));
    errors.extend(added.map(|(at, gate)| {
        let why = format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "name"));
        FieldError::forbidden(format!("spec.schedulingGates[{at}].name"), &why)
    }));
    let gated = !is_empty(&old["schedulingGates"]);
    if gated {
        errors.extend(node_selector(&new["nodeSelector"], &old["nodeSelector"]));
        errors.extend(node_affinity(&new["affinity"]["nodeAffinity"], &old["affinity"]["nodeAffinity"]));
    }
    let changed = changed_fields(&without_mutable(new, old, gated), old);
    if !changed.is_empty() {
        let why = format!("pod updates may not change fields other than {MUTABLE}\nchanged: {}", changed.join(", "));
        errors.push(FieldError::forbidden("spec", &why));
    }
    errors
}

/// `new` with what may change as it was.
fn without_mutable(new: &Value, old: &Value, gated: bool) -> Value {
    let mut spec = new.clone();
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, before) in containers.zip(items(&old[list])) {
            container["image"] = before["image"].clone();
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        spec[field] = old[field].clone();
    }
    let grace = "terminationGracePeriodSeconds";
    if old[grace].as_i64().is_some_and(|n| n < 0) && spec[grace] == 1 {
        spec[grace] = old[grace].clone();
    }
    if gated {
        spec["nodeSelector"] = old["nodeSelector"].clone();
        let (now, was) = (&spec["affinity"], &old["affinity"]["nodeAffinity"]);
        if !same(&now["nodeAffinity"], was) {
            let others = entries(now).any(|(kind, terms)| kind != "nodeAffinity" && !is_empty(terms));
            if old["affinity"].is_null() && !others {
                spec["affinity"] = Value::Null;
            } else {
                spec["affinity"]["nodeAffinity"] = was.clone();
            }
        }
    }
    spec
}

fn node_selector(new: &Value, old: &Value) -> Option<FieldError> {
    let kept = entries(old).all(|(key, value)| new.get(key) == Some(value));
    let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
    (!kept).then(|| FieldError::invalid("spec.nodeSelector", new, why))
}

/// The terms of a gated pod may be narrowed: each by more expressions, none may come or go.
fn node_affinity(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = format!("spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
    let (now, was) = (&new[REQUIRED]["nodeSelectorTerms"], &old[REQUIRED]["nodeSelectorTerms"]);
    if same(new, old) || is_empty(was) {
        return Vec::new();
    }
    if items(now).len() != items(was).len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return vec![FieldError::invalid(path, now, why)];
    }
    let terms = items(now).zip(items(was)).enumerate().filter(|(_, (now, was))| !only_additions(now, was));
    let why = "only additions are allowed (no mutations or deletions)";
    terms.map(|(i, (now, _))| FieldError::invalid(format!("{path}[{i}]"), now, why)).collect()
}

fn only_additions(new: &Value, old: &Value) -> bool {
    const LISTS: [&str; 2] = ["matchExpressions", "matchFields"];
    // A term without expressions selects nothing: with some it would select more.
    let selects = |term: &Value| LISTS.iter().any(|list| !is_empty(&term[*list]));
    if !selects(old) {
        return !selects(new);
    }
    LISTS.iter().all(|list| {
        let (now, was) = (items(&new[*list]), items(&old[*list]));
        now.len() >= was.len() && now.zip(was).all(|(now, was)| same(now, was))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(new: &Value, old: &Value) -> Vec<String> {
        pod(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn long_lists_are_compared_in_linear_time() {
        let tolerations: Vec<Value> =
            (0..40_000).map(|n| json!({"key": format!("k{n}"), "name": format!("g{n}")})).collect();
        let old = json!({"spec": {"containers": [], "tolerations": tolerations, "schedulingGates": tolerations}});
        let begun = std::time::Instant::now();
        assert_eq!(pod(&old, &old), []);
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }

    #[test]
    fn an_image_may_change_and_a_port_may_not() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}]}]}});
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = "x:2".into();
        assert_eq!(pod(&new, &old), []);
        new["spec"]["containers"][0]["ports"][0]["containerPort"] = 81.into();
        let errors = pod(&new, &old);
        assert!(errors[0].message.starts_with("Forbidden: pod updates may not change fields other than"), "{errors:?}");
        assert!(errors[0].message.ends_with("changed: containers"));
        new["spec"]["containers"] = json!([]);
        assert_eq!(pod(&new, &old)[0].message, "Forbidden: pod updates may not add or remove containers");
    }

    #[test]
    fn tolerations_may_be_added_and_not_taken_away() {
        let with = |list: Value| json!({"spec": {"containers": [], "tolerations": list}});
        let (a, b) = (json!({"key": "a", "operator": "Exists"}), json!({"key": "b", "operator": "Exists"}));
        assert_eq!(pod(&with(json!([a, b])), &with(json!([a]))), []);
        assert_eq!(pod(&with(json!([b])), &with(json!([a]))).len(), 1);
    }

    #[test]
    fn a_gated_pod_may_be_told_more_narrowly_where_to_go() {
        let gates = json!([{"name": "a/b"}]);
        let affinity = |keys: &[&str]| {
            let expressions: Vec<Value> = keys.iter().map(|key| json!({"key": key, "operator": "Exists"})).collect();
            json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}})
        };
        let with = |selector: Value, affinity: Value| json!({"spec": {"containers": [], "schedulingGates": gates, "nodeSelector": selector, "affinity": affinity}});
        let old = with(json!({"a": "b"}), affinity(&["x"]));
        assert_eq!(words(&with(json!({"a": "b", "c": "d"}), affinity(&["x", "y"])), &old), Vec::<String>::new());
        assert_eq!(
            words(&with(json!({"c": "d"}), affinity(&["y"])), &old),
            [
                "spec.nodeSelector: Invalid value: {\"c\":\"d\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)".to_owned(),
                format!(
                    "spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0]: Invalid value: {{\"matchExpressions\":[{{\"key\":\"y\",\"operator\":\"Exists\"}}]}}: only additions are allowed (no mutations or deletions)"
                ),
            ]
        );
        let free = with(Value::Null, Value::Null);
        assert_eq!(words(&with(json!({"a": "b"}), affinity(&["x"])), &free), Vec::<String>::new());
        let mut ungated = old.clone();
        ungated["spec"]["schedulingGates"] = json!([]);
        let mut moved = ungated.clone();
        moved["spec"]["nodeSelector"] = json!({"a": "b", "c": "d"});
        assert!(words(&moved, &ungated)[0].ends_with("changed: nodeSelector"));
        let mut regated = ungated.clone();
        regated["spec"]["schedulingGates"] = gates.clone();
        assert_eq!(
            words(&regated, &ungated),
            ["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a/b'"]
        );
    }
}
