//! RuntimeClass: a pod has the overhead of its class, and runs where its class runs.
//!
//! Source: `plugin/pkg/admission/runtimeclass`, whose words these are.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    amounts,
    plugins::{AdmissionContext, Mutate, Plugin, Validate},
    toleration::{self, Toleration},
};
use crate::{
    admission_plugins::PluginName,
    kinds::reading::{entries, items, text},
    request::Verb,
    status::Status,
};

/// Where RuntimeClasses are stored.
pub const RESOURCE: &str = "runtimeclasses.node.k8s.io";

/// New pods get what their class has for them, and no other overhead.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Now(mutate)),
    validate: Some(Validate::Now(validate)),
    ..Plugin::named(PluginName::RuntimeClass)
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
    tolerations: Vec<Toleration>,
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
        tolerations: items(&scheduling["tolerations"]).map(Toleration::read).collect(),
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
pub(super) enum RuntimeClassError {
    /// The pod says another overhead.
    #[error("{OTHER_OVERHEAD}")]
    Overhead,
    /// The pod wants nodes with another label than its class.
    #[error("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {said}")]
    NodeSelector { key: String, wanted: String, said: String },
}

/// Gives a new pod the overhead and the scheduling of its class.
pub(super) fn set(spec: &mut Value, class: &RuntimeClass) -> Result<(), RuntimeClassError> {
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
    let of_pod = items(&spec["tolerations"]).map(Toleration::read);
    let merged = toleration::merge(of_pod.chain(class.tolerations.iter().cloned()).collect());
    if !merged.is_empty() {
        spec["tolerations"] = merged.iter().map(Toleration::to_json).collect();
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
}
