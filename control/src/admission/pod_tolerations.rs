//! PodTolerationRestriction: a namespace's annotations give tolerations to its pods, and say which ones its pods may
//! have.
//!
//! There is no configuration file: nothing is given, and everything allowed, where a namespace says nothing.
//!
//! Source: `plugin/pkg/admission/podtolerationrestriction`, whose words these are.

use std::sync::Arc;

use serde_json::Value;

use super::{
    namespace::RESOURCE,
    plugins::{AdmissionContext, Mutate, Plugin, Validate},
    toleration::{self, Toleration},
};
use crate::{
    admission_plugins::PluginName,
    json_kind::json_kind,
    kinds::{
        pod::qos,
        reading::{as_text, items},
    },
    request::Verb,
    status::{Status, Subject},
};

/// New and changed pods keep to what their namespace says.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Now(mutate)),
    validate: Some(Validate::Now(validate)),
    ..Plugin::named(PluginName::PodTolerationRestriction)
};

const GIVEN: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

/// What a namespace says of its pods' tolerations. An error is told to whoever writes a pod that it is about.
#[derive(Debug)]
pub struct NamespaceTolerations {
    given: Result<Vec<Toleration>, TolerationsError>,
    allowed: Result<Vec<Toleration>, TolerationsError>,
}

/// Why an annotation is no list of tolerations. Kubernetes tells of broken JSON in Go's words.
#[derive(Debug, thiserror::Error)]
pub enum TolerationsError {
    /// It is no JSON.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// A value is no list, or one in the list is no object.
    #[error("json: cannot unmarshal {found} into Go value of type {wanted}")]
    Shape { found: &'static str, wanted: &'static str },
    /// A field is of another type.
    #[error("json: cannot unmarshal {found} into Go struct field Toleration.{field} of type {wanted}")]
    Field { found: String, field: &'static str, wanted: &'static str },
}

/// Reads a stored namespace.
pub fn read(namespace: &Value) -> NamespaceTolerations {
    let list = |annotation| parse(as_text(&namespace["metadata"]["annotations"][annotation]));
    NamespaceTolerations { given: list(GIVEN), allowed: list(ALLOWED) }
}

/// Reads a list as Go does, which takes names of fields in any case, and null for nothing.
fn parse(annotation: &str) -> Result<Vec<Toleration>, TolerationsError> {
    if annotation.is_empty() {
        return Ok(Vec::new());
    }
    let value: Value = serde_json::from_str(annotation)?;
    match &value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list.iter().map(parse_one).collect(),
        other => Err(TolerationsError::Shape { found: json_kind(other), wanted: "[]v1.Toleration" }),
    }
}

fn parse_one(value: &Value) -> Result<Toleration, TolerationsError> {
    let mut toleration = Toleration::default();
    let fields = match value {
        Value::Null => return Ok(toleration),
        Value::Object(fields) => fields,
        other => return Err(TolerationsError::Shape { found: json_kind(other), wanted: "v1.Toleration" }),
    };
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let wrong = |field, wanted| {
            let found = match value {
                Value::Number(number) if wanted == "int64" => format!("number {number}"),
                other => json_kind(other).to_owned(),
            };
            TolerationsError::Field { found, field, wanted }
        };
        let string = |field, wanted| value.as_str().map(str::to_owned).ok_or_else(|| wrong(field, wanted));
        match name.to_ascii_lowercase().as_str() {
            "key" => toleration.key = string("key", "string")?,
            "operator" => toleration.operator = string("operator", "v1.TolerationOperator")?,
            "value" => toleration.value = string("value", "string")?,
            "effect" => toleration.effect = string("effect", "v1.TaintEffect")?,
            "tolerationseconds" => {
                let seconds = value.as_i64().ok_or_else(|| wrong("tolerationSeconds", "int64"))?;
                toleration.seconds = Some(seconds);
            }
            _ => {}
        }
    }
    Ok(toleration)
}

fn mutate(context: &AdmissionContext<'_>, pod: &mut Value) -> Result<(), Status> {
    if !concerns(context) {
        return Ok(());
    }
    let mut more = Vec::new();
    if context.request.operation == Verb::Create {
        more.extend(known(&of_namespace(context)?.given)?.iter().cloned());
    }
    if !qos::is_best_effort(pod) {
        more.push(Toleration::of_no_schedule(MEMORY_PRESSURE));
    }
    if !more.is_empty() {
        let merged = toleration::merge([of_pod(pod), more].concat());
        pod["spec"]["tolerations"] = merged.iter().map(Toleration::to_json).collect();
    }
    validate(context, pod)
}

fn validate(context: &AdmissionContext<'_>, pod: &Value) -> Result<(), Status> {
    let tolerations = of_pod(pod);
    if tolerations.is_empty() || !concerns(context) {
        return Ok(());
    }
    match toleration::are_allowed(&tolerations, known(&of_namespace(context)?.allowed)?) {
        true => Ok(()),
        false => Err(Status::plain_error(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace \
             whitelist",
        )),
    }
}

fn concerns(context: &AdmissionContext<'_>) -> bool {
    context.puts(("", "Pod"))
}

fn of_namespace(context: &AdmissionContext<'_>) -> Result<Arc<NamespaceTolerations>, Status> {
    let (request, name) = (context.request, context.request.namespace.unwrap_or_default());
    let found = context.readings.tolerations.get(request.snapshot, name);
    found.ok_or_else(|| Status::not_found(Subject { group: "", resource: RESOURCE, name }))
}

fn known(list: &Result<Vec<Toleration>, TolerationsError>) -> Result<&[Toleration], Status> {
    list.as_deref().map_err(|error| Status::plain_error(error.to_string()))
}

fn of_pod(pod: &Value) -> Vec<Toleration> {
    items(&pod["spec"]["tolerations"]).map(Toleration::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_read_as_go_reads_them() {
        let read = |text: &str| parse(text).map_err(|error| error.to_string());
        let a = Toleration::of_no_schedule("a");
        assert_eq!(read(""), Ok(Vec::new()));
        assert_eq!(read("null"), Ok(Vec::new()));
        let text = r#"[{"Key": "a", "operator": "Exists", "EFFECT": "NoSchedule", "value": null, "more": 1}, null]"#;
        assert_eq!(read(text), Ok(vec![a, Toleration::default()]));
        for (text, why) in [
            ("{}", "json: cannot unmarshal object into Go value of type []v1.Toleration"),
            ("[1]", "json: cannot unmarshal number into Go value of type v1.Toleration"),
            (r#"[{"key": 1}]"#, "json: cannot unmarshal number into Go struct field Toleration.key of type string"),
            (
                r#"[{"tolerationSeconds": 1.5}]"#,
                "json: cannot unmarshal number 1.5 into Go struct field Toleration.tolerationSeconds of type int64",
            ),
            (
                r#"[{"tolerationSeconds": "1"}]"#,
                "json: cannot unmarshal string into Go struct field Toleration.tolerationSeconds of type int64",
            ),
        ] {
            assert_eq!(read(text), Err(why.to_owned()), "{text}");
        }
        assert!(matches!(parse("["), Err(TolerationsError::Syntax(cause)) if cause.is_eof()));
    }
}
