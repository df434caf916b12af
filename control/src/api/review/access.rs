//! What the reviews of access share: what they ask about, reasons why they ask nothing, and the answer.

use serde_json::{Value, json};

use crate::{
    api::{Api, request::Call},
    auth::{
        attributes::{Attributes, Resource},
        authorizer::Verdict,
    },
    identity::Identity,
    kinds::FieldError,
    request::selector::{FieldSelector, LabelSelector},
    status::{Status, Subject},
};

/// Why a review may not be answered. Of the requester's own access no user is named.
pub fn validate(review: &Value, names_user: bool) -> Vec<FieldError> {
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut errors = Vec::new();
    if !resource.is_null() && !path.is_null() {
        let shown = json!({"Path": path["path"], "Verb": path["verb"]});
        let why = "cannot be specified in combination with resourceAttributes";
        errors.push(FieldError::invalid("spec.nonResourceAttributes", &shown, why));
    }
    if resource.is_null() && path.is_null() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid("spec.resourceAttributes", &Value::Null, why));
    }
    let nobody = spec["user"].as_str().is_none_or(str::is_empty) && spec["groups"].as_array().is_none_or(Vec::is_empty);
    if names_user && nobody {
        let why = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", &json!(""), why));
    }
    for field in ["fieldSelector", "labelSelector"] {
        errors.extend(selector(&format!("spec.resourceAttributes.{field}"), &resource[field]));
    }
    errors
}

fn selector(path: &str, selector: &Value) -> Option<FieldError> {
    let raw = selector["rawSelector"].as_str().is_some_and(|raw| !raw.is_empty());
    let requirements = selector["requirements"].as_array().is_some_and(|list| !list.is_empty());
    match (selector.is_null(), raw, requirements) {
        (true, ..) | (_, true, false) | (_, false, true) => None,
        (_, true, true) => {
            let why = "may not specified at the same time as requirements";
            Some(FieldError::invalid(format!("{path}.rawSelector"), &selector["rawSelector"], why))
        }
        (_, false, false) => {
            let why = format!("when {path} is specified, requirements or rawSelector is required");
            Some(FieldError::required(format!("{path}.requirements"), &why))
        }
    }
}

/// Something, if a review has metadata. Those that belong to a namespace name it there.
pub fn metadata(review: &Value, namespaced: bool) -> Option<FieldError> {
    let said = |(field, value): (&String, &Value)| {
        let ours =
            matches!(field.as_str(), "managedFields" | "creationTimestamp") || namespaced && field == "namespace";
        !ours && !value.is_null() && *value != ""
    };
    let any = review["metadata"].as_object().is_some_and(|metadata| metadata.iter().any(said));
    let why = if namespaced { "must be empty except for namespace" } else { "must be empty" };
    any.then(|| FieldError::invalid("metadata", &review["metadata"], why))
}

/// Refuses a review with any reason against it.
pub fn must_be_valid(call: &Call, errors: &[FieldError]) -> Result<(), Status> {
    let kind = &call.target.kind;
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(Subject { group: &kind.group, resource: &kind.kind, name: "" }, errors)),
    }
}

/// The user that a review names.
pub fn user_of(review: &Value) -> Identity {
    let spec = &review["spec"];
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let extra = spec["extra"].as_object().into_iter().flatten().map(|(key, values)| (key.clone(), texts(values)));
    Identity { name: text("user"), groups: texts(&spec["groups"]), uid: text("uid"), extra: extra.collect() }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The review with its answer: whether `identity` may do what it asks about.
pub async fn answer(api: &Api, identity: &Identity, mut review: Value) -> Result<Value, Status> {
    let asked = &review["spec"]["resourceAttributes"];
    let (fields, unread_fields) = field_selector(&asked["fieldSelector"]);
    let (labels, unread_labels) = label_selector(&asked["labelSelector"]);
    let attributes = attributes(&review["spec"], &fields, &labels);
    let verdict = api.authorizer().decide(identity, &attributes).await;
    let verdict = verdict.map_err(|error| error.to_status())?;
    let (mut status, reason, error) = match verdict {
        Verdict::Allowed { reason } => (json!({"allowed": true}), reason, None),
        Verdict::Refused { reason, is_denied: false, error } => (json!({"allowed": false}), reason, error),
        Verdict::Refused { reason, is_denied: true, error } => {
            (json!({"allowed": false, "denied": true}), reason, error)
        }
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    let errors: Vec<String> = unread_fields.into_iter().chain(unread_labels).chain(error).collect();
    match errors.as_slice() {
        [] => {}
        [one] => status["evaluationError"] = one.as_str().into(),
        many => status["evaluationError"] = format!("[{}]", many.join(", ")).into(),
    }
    review["status"] = status;
    Ok(review)
}

/// The field selector of a review; what cannot be read of it narrows nothing.
fn field_selector(selector: &Value) -> (FieldSelector, Option<String>) {
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let terms: Vec<String> = requirements
        .filter_map(|requirement| {
            let values = requirement["values"].as_array().map(Vec::as_slice).unwrap_or_default();
            let (key, operator) = (requirement["key"].as_str()?, requirement["operator"].as_str()?);
            match (operator, values) {
                ("In", [Value::String(value)]) => Some(format!("{key}={}", escaped(value))),
                ("NotIn", [Value::String(value)]) => Some(format!("{key}!={}", escaped(value))),
                _ => None,
            }
        })
        .collect();
    let raw = selector["rawSelector"].as_str().map_or_else(|| terms.join(","), str::to_owned);
    match raw.parse() {
        Ok(fields) => (fields, None),
        Err(error) => (
            FieldSelector::default(),
            Some(format!("spec.resourceAttributes.fieldSelector ignored due to parse error: {error}")),
        ),
    }
}

/// The label selector of a review; what cannot be read of it narrows nothing.
fn label_selector(selector: &Value) -> (LabelSelector, Option<String>) {
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let terms = requirements.filter_map(|requirement| {
        let (key, operator) = (requirement["key"].as_str()?, requirement["operator"].as_str()?);
        let values = texts(&requirement["values"]).join(",");
        match operator {
            "In" => Some(format!("{key} in ({values})")),
            "NotIn" => Some(format!("{key} notin ({values})")),
            "Exists" => Some(key.to_owned()),
            "DoesNotExist" => Some(format!("!{key}")),
            _ => None,
        }
    });
    let raw = selector["rawSelector"].as_str().map_or_else(|| terms.collect::<Vec<_>>().join(","), str::to_owned);
    match raw.parse() {
        Ok(labels) => (labels, None),
        Err(error) => (
            LabelSelector::default(),
            Some(format!("spec.resourceAttributes.labelSelector ignored due to parse error: {error}")),
        ),
    }
}

/// A value as it stands in the text of a field selector.
fn escaped(value: &str) -> String {
    value.chars().flat_map(|c| matches!(c, '\\' | ',' | '=').then_some('\\').into_iter().chain([c])).collect()
}

/// What the review asks about; `fields` and `labels` are its selectors.
fn attributes<'a>(spec: &'a Value, fields: &'a FieldSelector, labels: &'a LabelSelector) -> Attributes<'a> {
    let asked = &spec["resourceAttributes"];
    let text = |field: &str| asked[field].as_str().unwrap_or_default();
    if !asked.is_object() {
        let asked = &spec["nonResourceAttributes"];
        let text = |field: &str| asked[field].as_str().unwrap_or_default();
        return Attributes::Path { verb: text("verb").to_owned(), path: text("path") };
    }
    Attributes::Resource(Resource {
        verb: text("verb"),
        group: text("group"),
        version: text("version"),
        namespace: text("namespace"),
        resource: text("resource"),
        subresource: text("subresource"),
        name: text("name"),
        fields: Some(fields),
        labels: Some(labels),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_asks_one_thing_about_somebody() {
        let words = |spec: Value| -> Vec<String> {
            let errors = validate(&json!({"spec": spec}), true);
            errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
        };
        let pods = json!({"verb": "get", "resource": "pods"});
        assert!(words(json!({"user": "a", "resourceAttributes": pods})).is_empty());
        assert_eq!(
            words(json!({})),
            [
                "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or \
                 resourceAttributes must be specified",
                "spec.user: Invalid value: \"\": at least one of user or group must be specified",
            ]
        );
        let both = json!({"groups": ["g"], "resourceAttributes": pods, "nonResourceAttributes": {"path": "/"}});
        assert_eq!(words(both).len(), 1);
        assert!(metadata(&json!({"metadata": {"name": "x"}}), false).is_some());
        assert!(metadata(&json!({"metadata": {"namespace": "x"}}), true).is_none());
        assert!(metadata(&json!({"metadata": {"namespace": "x"}}), false).is_some());
    }

    #[test]
    fn requirements_narrow_as_their_text_does() {
        let by = json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n,1"]}]});
        let (fields, error) = field_selector(&by);
        assert_eq!((fields.exact("spec.nodeName"), error), (Some("n,1"), None));
    }

    #[test]
    fn the_verb_on_a_path_is_asked_as_it_is_written() {
        let spec = json!({"nonResourceAttributes": {"verb": "GET", "path": "/version"}});
        let expected = Attributes::Path { verb: "GET".to_owned(), path: "/version" };
        assert_eq!(attributes(&spec, &FieldSelector::default(), &LabelSelector::default()), expected);
    }
}
