//! RuntimeClass: a pod has the overhead of its class, and runs where its class runs.
//!
//! Source: `plugin/pkg/admission/runtimeclass`, whose words these are.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    amounts,
    plugins::{AdmissionContext, Mutate, Plugin, Validate},
};
use crate::{
    kinds::reading::{entries, items, same, text},
    request::Verb,
    status::Status,
};

/// Where RuntimeClasses are stored.
pub const RESOURCE: &str = "runtimeclasses.node.k8s.io";

/// New pods get what their class has for them, and no other overhead.
pub static PLUGIN: Plugin = Plugin {
    name: "RuntimeClass",
    mutate: Some(Mutate::Now(mutate)),
    validate: Some(Validate::Now(validate)),
    ..Plugin::NONE
};

fn mutate(context: &AdmissionContext<'_>, pod: &mut Value) -> Result<(), Status> {
    let name = text(&pod["spec"], "runtimeClassName").to_owned();
    if name.is_empty() || !context.is(Verb::Create, ("", "Pod"), None) {
        return Ok(());
    }
    let class = class(context, &name).ok_or_else(|| context.forbidden(&not_found(&name)))?;
    set(&mut pod["spec"], &class).map_err(|error| context.forbidden(&error.to_string()))
}

fn validate(context: &AdmissionContext<'_>, pod: &Value) -> Result<(), Status> {
    if !context.is(Verb::Create, ("", "Pod"), None) {
        return Ok(());
    }
    let name = text(&pod["spec"], "runtimeClassName");
    let class = if name.is_empty() { None } else { class(context, name) };
    violation(&pod["spec"], class.as_deref()).map_or(Ok(()), |why| Err(context.forbidden(why)))
}

fn class(context: &AdmissionContext<'_>, name: &str) -> Option<Arc<RuntimeClass>> {
    context.readings.runtimes.get(context.request.snapshot, name)
}

/// What a RuntimeClass says of its pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeClass {
    /// Null where it says none.
    overhead: Value,
    node_selector: Value,
    tolerations: Vec<Value>,
    schedules: bool,
}

/// Reads a stored RuntimeClass.
pub fn read(class: &Value) -> RuntimeClass {
    let overhead = match class["overhead"].is_null() {
        true => Value::Null,
        false => class["overhead"].get("podFixed").filter(|fixed| !fixed.is_null()).cloned().unwrap_or(json!({})),
    };
    let scheduling = &class["scheduling"];
    RuntimeClass {
        overhead,
        node_selector: scheduling["nodeSelector"].clone(),
        tolerations: items(&scheduling["tolerations"]).cloned().collect(),
        schedules: scheduling.is_object(),
    }
}

/// The words for a class that does not exist.
fn not_found(name: &str) -> String {
    format!("pod rejected: RuntimeClass {name:?} not found")
}

const OTHER_OVERHEAD: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// Why a pod cannot have what its class has for it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum RuntimeClassError {
    /// The pod says another overhead.
    #[error("{OTHER_OVERHEAD}")]
    Overhead,
    /// The pod wants nodes with another label than its class.
    #[error("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {said}")]
    NodeSelector { key: String, wanted: String, said: String },
}

/// Gives a new pod the overhead and the scheduling of its class.
fn set(spec: &mut Value, class: &RuntimeClass) -> Result<(), RuntimeClassError> {
    if !class.overhead.is_null() {
        let said = &spec["overhead"];
        if entries(said).next().is_some() && amounts::read(said) != amounts::read(&class.overhead) {
            return Err(RuntimeClassError::Overhead);
        }
        spec["overhead"] = class.overhead.clone();
    }
    if !class.schedules {
        return Ok(());
    }
    for (key, wanted) in entries(&class.node_selector) {
        let said = &spec["nodeSelector"][key];
        if !said.is_null() && said != wanted {
            let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (wanted, said) = (words(wanted), words(said));
            return Err(RuntimeClassError::NodeSelector { key: key.to_string(), wanted, said });
        }
    }
    for (key, wanted) in entries(&class.node_selector) {
        spec["nodeSelector"][key] = wanted.clone();
    }
    let merged = merge(items(&spec["tolerations"]).chain(&class.tolerations).collect());
    if !merged.is_empty() {
        spec["tolerations"] = merged.into();
    }
    Ok(())
}

/// Why a new pod is refused whose overhead is not that of its class.
fn violation(spec: &Value, class: Option<&RuntimeClass>) -> Option<&'static str> {
    match class.filter(|class| !class.overhead.is_null()) {
        Some(class) => (amounts::read(&spec["overhead"]) != amounts::read(&class.overhead)).then_some(OTHER_OVERHEAD),
        None if spec["overhead"].is_null() => None,
        None => Some("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"),
    }
}

/// More tolerations than this stay as they are: each is compared with all others.
const MOST_MERGED: usize = 1000;

/// The tolerations without those that another one covers.
fn merge(all: Vec<&Value>) -> Vec<Value> {
    if all.len() > MOST_MERGED {
        return all.into_iter().cloned().collect();
    }
    let mut merged: Vec<Value> = Vec::new();
    for (i, toleration) in all.iter().enumerate() {
        let covered = merged.iter().any(|known| covers(known, toleration))
            || all[i + 1..].iter().any(|later| !same(later, toleration) && covers(later, toleration));
        if !covered {
            merged.push((*toleration).clone());
        }
    }
    merged
}

/// Whether `wide` tolerates all that `toleration` tolerates.
fn covers(wide: &Value, toleration: &Value) -> bool {
    if same(wide, toleration) {
        return true;
    }
    let of = |field: &str| (text(wide, field), text(toleration, field));
    let ((key, other), (effect, other_effect), operator) = (of("key"), of("effect"), text(wide, "operator"));
    if (key != other && !(key.is_empty() && operator == "Exists")) || (effect != other_effect && !effect.is_empty()) {
        return false;
    }
    if let Some(seconds) = wide["tolerationSeconds"].as_i64().filter(|_| effect == "NoExecute")
        && toleration["tolerationSeconds"].as_i64().is_none_or(|other| other > seconds)
    {
        return false;
    }
    match operator {
        "" | "Equal" => {
            let (value, other) = of("value");
            text(toleration, "operator") == "Equal" && value == other
        }
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_the_overhead_and_the_place_of_its_class() {
        let class = read(&json!({"overhead": {"podFixed": {"cpu": "100m"}}, "scheduling": {
            "nodeSelector": {"runtime": "kata"}, "tolerations": [{"key": "kata", "operator": "Exists"}]}}));
        let mut spec = json!({"nodeSelector": {"a": "b"}, "tolerations": [
            {"key": "kata", "operator": "Equal", "value": "x", "effect": "NoSchedule"}]});
        set(&mut spec, &class).unwrap();
        assert_eq!(
            spec,
            json!({"nodeSelector": {"a": "b", "runtime": "kata"}, "overhead": {"cpu": "100m"},
                "tolerations": [{"key": "kata", "operator": "Exists"}]})
        );
        assert_eq!(violation(&spec, Some(&class)), None);
        let mut other = json!({"nodeSelector": {"runtime": "runc"}});
        assert_eq!(
            set(&mut other, &class).unwrap_err().to_string(),
            "conflict: runtimeClass.scheduling.nodeSelector[runtime] = kata; pod.spec.nodeSelector[runtime] = runc"
        );
        let mut same = json!({"overhead": {"cpu": "0.1"}});
        assert_eq!(set(&mut same, &class), Ok(()));
        let mut other = json!({"overhead": {"cpu": "1"}});
        assert_eq!(set(&mut other, &class).unwrap_err().to_string(), OTHER_OVERHEAD);
    }

    #[test]
    fn overhead_without_a_class_is_refused() {
        assert_eq!(
            violation(&json!({"overhead": {"cpu": "1"}}), None),
            Some("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
        );
        assert_eq!(violation(&json!({}), Some(&RuntimeClass::default())), None);
        let class = read(&json!({"overhead": {"podFixed": {"cpu": "1"}}}));
        assert_eq!(violation(&json!({}), Some(&class)), Some(OTHER_OVERHEAD));
    }

    #[test]
    fn a_toleration_that_another_covers_goes() {
        let wide = json!({"operator": "Exists"});
        let narrow =
            json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5});
        let short = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
        assert_eq!(merge(vec![&narrow, &wide]), std::slice::from_ref(&wide));
        assert_eq!(merge(vec![&narrow, &short]), [narrow.clone(), short.clone()]);
        assert_eq!(merge(vec![&narrow, &narrow]), [narrow]);
    }
}
