//! Priority: a pod has the priority and the preemption policy of its PriorityClass, and there is one class at most for
//! pods that name none.
//!
//! Source: `plugin/pkg/admission/priority`, whose words these are.

use std::sync::Arc;

use serde_json::{Value, json};

use super::plugins::{AdmissionContext, Mutate, Plugin, Validate};
use crate::{admission_plugins::PluginName, kinds::reading::text, request::Verb, status::Status};

/// Where PriorityClasses are stored.
pub const RESOURCE: &str = "priorityclasses.scheduling.k8s.io";

/// Pods get their priority; a second default class is refused.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Now(mutate)),
    validate: Some(Validate::Now(validate)),
    ..Plugin::named(PluginName::Priority)
};

fn mutate(context: &AdmissionContext<'_>, pod: &mut Value) -> Result<(), Status> {
    let (snapshot, classes) = (context.request.snapshot, &context.readings.priorities);
    if context.is(Verb::Create, ("", "Pod"), None) {
        let named = |name: &str| classes.get(snapshot, name);
        return set(&mut pod["spec"], named, || classes.list(snapshot, ""))
            .map_err(|error| context.forbidden(&error.to_string()));
    }
    if context.is(Verb::Update, ("", "Pod"), None) {
        keep(&mut pod["spec"], &context.request.old.unwrap_or(&Value::Null)["spec"]);
    }
    Ok(())
}

fn validate(context: &AdmissionContext<'_>, class: &Value) -> Result<(), Status> {
    let request = context.request;
    if !context.is(request.operation, ("scheduling.k8s.io", "PriorityClass"), None) {
        return Ok(());
    }
    let classes = context.readings.priorities.list(request.snapshot, "");
    let violation = violation(class, request.operation == Verb::Create, &classes);
    violation.map_or(Ok(()), |why| Err(context.forbidden(&why)))
}

/// What a PriorityClass gives to its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriorityClass {
    value: i64,
    preemption_policy: Option<String>,
    is_default: bool,
}

/// Reads a stored PriorityClass.
pub fn read(class: &Value) -> PriorityClass {
    PriorityClass {
        value: class["value"].as_i64().unwrap_or_default(),
        preemption_policy: class["preemptionPolicy"].as_str().map(str::to_owned),
        is_default: class["globalDefault"] == true,
    }
}

/// The class of pods that name none. Where a race made several, the one that gives the lowest priority.
fn default_class(classes: &[(Arc<str>, Arc<PriorityClass>)]) -> Option<(&str, &PriorityClass)> {
    let defaults = classes.iter().filter(|(_, class)| class.is_default);
    defaults.min_by_key(|(_, class)| class.value).map(|(name, class)| (&**name, &**class))
}

/// Why a pod cannot have the priority of its class.
#[derive(Debug, thiserror::Error)]
enum PriorityError {
    /// There is no such class.
    #[error("no PriorityClass with name {0} was found")]
    NoClass(String),
    /// The pod says another priority than its class.
    #[error(
        "the integer value of priority ({said}) must not be provided in pod spec; priority admission controller \
         computed {computed} from the given PriorityClass name"
    )]
    OtherPriority { said: i64, computed: i64 },
    /// The pod says another policy than its class.
    #[error(
        "the string value of PreemptionPolicy ({said}) must not be provided in pod spec; priority admission \
         controller computed {computed} from the given PriorityClass name"
    )]
    OtherPreemptionPolicy { said: String, computed: String },
}

/// Gives a new pod the priority of its class. `classes` are all there are; `named` is the one that the pod names, if it
/// does.
fn set(
    spec: &mut Value,
    named: impl FnOnce(&str) -> Option<Arc<PriorityClass>>,
    classes: impl FnOnce() -> Vec<(Arc<str>, Arc<PriorityClass>)>,
) -> Result<(), PriorityError> {
    let name = text(spec, "priorityClassName").to_owned();
    let class = if name.is_empty() {
        match default_class(&classes()) {
            Some((name, class)) => {
                spec["priorityClassName"] = name.into();
                class.clone()
            }
            None => {
                PriorityClass { preemption_policy: Some("PreemptLowerPriority".into()), ..PriorityClass::default() }
            }
        }
    } else {
        let found = named(&name).ok_or(PriorityError::NoClass(name))?;
        PriorityClass::clone(&found)
    };
    if let Some(said) = spec["priority"].as_i64().filter(|said| *said != class.value) {
        return Err(PriorityError::OtherPriority { said, computed: class.value });
    }
    spec["priority"] = class.value.into();
    let Some(policy) = class.preemption_policy else { return Ok(()) };
    if let Some(said) = spec["preemptionPolicy"].as_str().filter(|said| *said != policy) {
        return Err(PriorityError::OtherPreemptionPolicy { said: said.to_owned(), computed: policy });
    }
    spec["preemptionPolicy"] = policy.into();
    Ok(())
}

/// An update that leaves out the priority keeps it.
fn keep(spec: &mut Value, old: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        if spec[field].is_null() && !old[field].is_null() {
            spec[field] = json!(old[field]);
        }
    }
}

/// Why a class cannot be the one for pods that name none.
fn violation(class: &Value, is_new: bool, classes: &[(Arc<str>, Arc<PriorityClass>)]) -> Option<String> {
    if class["globalDefault"] != true {
        return None;
    }
    let (name, _) = default_class(classes)?;
    (is_new || name != text(&class["metadata"], "name"))
        .then(|| format!("PriorityClass {name} is already marked as default. Only one default can exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<(Arc<str>, Arc<PriorityClass>)> {
        let class = |name: &str, class: Value| (Arc::from(name), Arc::new(read(&class)));
        vec![
            class("high", json!({"value": 1000, "preemptionPolicy": "Never"})),
            class("second", json!({"value": 20, "globalDefault": true, "preemptionPolicy": "PreemptLowerPriority"})),
            class("usual", json!({"value": 10, "globalDefault": true, "preemptionPolicy": "PreemptLowerPriority"})),
        ]
    }

    fn set_in(spec: Value, classes: Vec<(Arc<str>, Arc<PriorityClass>)>) -> Result<Value, PriorityError> {
        let mut spec = spec;
        let find = |name: &str| classes.iter().find(|(known, _)| **known == *name).map(|(_, class)| class.clone());
        set(&mut spec, find, || classes.clone()).map(|()| spec)
    }

    #[test]
    fn a_pod_has_the_priority_of_its_class() {
        assert_eq!(
            set_in(json!({"priorityClassName": "high"}), classes()).unwrap(),
            json!({"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never"})
        );
        let usual = json!({"priorityClassName": "usual", "priority": 10, "preemptionPolicy": "PreemptLowerPriority"});
        assert_eq!(set_in(json!({}), classes()).unwrap(), usual);
        let none = json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"});
        assert_eq!(set_in(json!({}), Vec::new()).unwrap(), none);
        assert_eq!(set_in(json!({"priority": 0}), Vec::new()).unwrap(), none);
    }

    #[test]
    fn a_pod_cannot_choose_its_priority() {
        let refused = |spec: Value| set_in(spec, classes()).unwrap_err().to_string();
        assert_eq!(refused(json!({"priorityClassName": "none"})), "no PriorityClass with name none was found");
        assert_eq!(
            refused(json!({"priorityClassName": "high", "priority": 5})),
            "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed \
            1000 from the given PriorityClass name"
        );
        assert_eq!(
            refused(json!({"priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority"})),
            "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority \
            admission controller computed Never from the given PriorityClass name"
        );
        let mut spec = json!({});
        keep(&mut spec, &json!({"priority": 3, "preemptionPolicy": "Never"}));
        assert_eq!(spec, json!({"priority": 3, "preemptionPolicy": "Never"}));
    }

    #[test]
    fn one_class_is_the_default() {
        let class = json!({"metadata": {"name": "usual"}, "globalDefault": true});
        let words = "PriorityClass usual is already marked as default. Only one default can exist";
        assert_eq!(violation(&class, true, &classes()).as_deref(), Some(words));
        assert_eq!(violation(&class, false, &classes()), None);
        assert_eq!(violation(&class, true, &classes()[..1]), None);
        assert_eq!(violation(&json!({"metadata": {"name": "other"}}), true, &classes()), None);
    }
}
