//! PodNodeSelector: a namespace's annotation selects the nodes of its pods.
//!
//! There is no configuration file: no selector for namespaces without the annotation, and no list of labels that pods
//! may select.
//!
//! Source: `plugin/pkg/admission/podnodeselector`, whose words these are.

use std::collections::BTreeMap;

use serde_json::Value;

use super::plugins::{AdmissionContext, Mutate, Plugin, Validate};
use crate::{
    admission_plugins::PluginName,
    kinds::{
        FieldError, names,
        reading::{as_text, entries},
    },
    request::Verb,
    status::Status,
};

/// New pods get the selector of their namespace, and may not contradict it.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Now(mutate)),
    validate: Some(Validate::Now(|context, pod| with_labels(context, |labels| agree(context, labels, pod)))),
    ..Plugin::named(PluginName::PodNodeSelector)
};

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";

/// The labels that nodes must have.
type Labels = BTreeMap<String, String>;

/// What a namespace says of the nodes of its pods. An error is told to whoever makes a pod.
pub type NamespaceSelector = Result<Labels, SelectorError>;

/// Why an annotation selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A term is not of the form `KEY=VALUE`. As Go shows a list of its parts.
    #[error("invalid selector: [{}]", .0.join(" "))]
    Term(Vec<String>),
    /// A key or a value is no label's.
    #[error("{}: {}", .0.path, .0.message)]
    Label(FieldError),
}

/// Reads a stored namespace.
pub fn read(namespace: &Value) -> NamespaceSelector {
    parse(as_text(&namespace["metadata"]["annotations"][ANNOTATION]))
}

/// Reads `a=b,c=d`.
fn parse(text: &str) -> NamespaceSelector {
    let mut labels = Labels::new();
    for term in text.split(',').filter(|_| !text.is_empty()) {
        let parts: Vec<&str> = term.split('=').collect();
        let [key, value] = parts.as_slice() else {
            return Err(SelectorError::Term(parts.into_iter().map(str::to_owned).collect()));
        };
        let (key, value) = (key.trim(), value.trim());
        // The paths are those of Kubernetes, which are of no object.
        must_be_label("<nil>".to_owned(), key, names::qualified_name(key))?;
        must_be_label(format!("[{key}]"), value, names::label_value(value))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn must_be_label(path: String, text: &str, why: Vec<String>) -> Result<(), SelectorError> {
    if why.is_empty() {
        return Ok(());
    }
    Err(SelectorError::Label(FieldError::invalid(path, &Value::from(text), why.join("; "))))
}

fn mutate(context: &AdmissionContext<'_>, pod: &mut Value) -> Result<(), Status> {
    with_labels(context, |labels| {
        agree(context, labels, pod)?;
        if !labels.is_empty() {
            let selector = &mut pod["spec"]["nodeSelector"];
            let mut merged: BTreeMap<String, Value> =
                labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
            merged.extend(entries(selector).map(|(key, value)| (key.clone(), value.clone())));
            *selector = merged.into_iter().collect();
        }
        Ok(())
    })
}

/// Does something by the labels of the namespace of a new pod; nothing for other writes.
fn with_labels(context: &AdmissionContext<'_>, act: impl FnOnce(&Labels) -> Result<(), Status>) -> Result<(), Status> {
    let request = context.request;
    let Some(namespace) = request.namespace.filter(|_| context.is(Verb::Create, ("", "Pod"), None)) else {
        return Ok(());
    };
    let Some(found) = context.readings.node_selectors.get(request.snapshot, namespace) else {
        return Err(Status::internal(format!("namespace {namespace} does not exist")));
    };
    match &*found {
        Ok(labels) => act(labels),
        Err(error) => Err(Status::plain_error(error.to_string())),
    }
}

fn agree(context: &AdmissionContext<'_>, labels: &Labels, pod: &Value) -> Result<(), Status> {
    match conflict(labels, &pod["spec"]["nodeSelector"]) {
        true => Err(context.forbidden("pod node label selector conflicts with its namespace node label selector")),
        false => Ok(()),
    }
}

/// Whether a pod selects another value of a label.
fn conflict(labels: &Labels, selector: &Value) -> bool {
    entries(selector).any(|(key, value)| labels.get(key).is_some_and(|own| value != own.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_annotation_is_read_as_kubernetes_does() {
        let read = |text: &str| {
            let namespace = json!({"metadata": {"annotations": {ANNOTATION: text}}});
            read(&namespace).map_err(|error| error.to_string())
        };
        let labels = |pairs: &[(&str, &str)]| -> Result<Labels, String> {
            Ok(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        assert_eq!(read(""), labels(&[]));
        assert_eq!(
            read("env=test, a.io/disk = ssd ,empty="),
            labels(&[("a.io/disk", "ssd"), ("empty", ""), ("env", "test")])
        );
        assert_eq!(read("env"), Err("invalid selector: [env]".into()));
        assert_eq!(read("a=b,c=d=e"), Err("invalid selector: [c d e]".into()));
        let key = read("a b=c").unwrap_err();
        assert!(key.starts_with("<nil>: Invalid value: \"a b\": name part must consist of"), "{key}");
        let value = read("a=b c").unwrap_err();
        assert!(value.starts_with("[a]: Invalid value: \"b c\": a valid label must be"), "{value}");
        assert_eq!(super::read(&json!({"metadata": {}})), Ok(Labels::new()));
    }

    #[test]
    fn a_pod_may_add_labels_and_contradict_none() {
        let labels = parse("env=test").unwrap();
        assert!(!conflict(&labels, &json!({"env": "test", "disk": "ssd"})) && !conflict(&labels, &Value::Null));
        assert!(conflict(&labels, &json!({"env": "live"})));
    }
}
