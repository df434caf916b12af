//! When a webhook is asked at all: CEL expressions about a SubjectAccessReview.
//!
//! Source: `k8s.io/apiserver/pkg/authorization/cel`, whose words these are.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use serde_json::Value;

use crate::{
    cel::{
        Activation, EvalError, Program, Scope, Type, Value as Cel,
        typing::{Decl, DeclType},
    },
    kinds::admissionregistration::scope::{ExpressionCompileError, compile},
};

/// The conditions of one webhook.
pub struct AccessConditions(Vec<(String, Program)>);

/// Conditions that cannot be told to hold.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", shown(.0))]
pub struct AccessConditionsError(Vec<ConditionError>);

#[derive(Clone, Debug, thiserror::Error)]
enum ConditionError {
    #[error("cel evaluation error: expression '{text}' resulted in error: {error}")]
    Evaluation { text: String, error: EvalError },
    #[error("cel evaluation error: expression '{0}' eval result type should be bool")]
    NoBoolean(String),
}

static SCOPE: LazyLock<Scope> = LazyLock::new(|| {
    let object = |name: &str, fields: Vec<(&str, Arc<Decl>)>| {
        let fields: BTreeMap<_, _> = fields.into_iter().map(|(name, decl)| (name.to_owned(), decl)).collect();
        decl(DeclType::Object { name: format!("kubernetes.{name}"), fields })
    };
    let requirement =
        object("SelectorRequirement", vec![("key", text()), ("operator", text()), ("values", list(text()))]);
    let selector =
        |name: &str| object(name, vec![("rawSelector", text()), ("requirements", list(requirement.clone()))]);
    // As expressions write it: it is a reserved word.
    let mut resource = vec![
        ("fieldSelector", selector("FieldSelectorAttributes")),
        ("labelSelector", selector("LabelSelectorAttributes")),
    ];
    for field in ["__namespace__", "verb", "group", "version", "resource", "subresource", "name"] {
        resource.push((field, text()));
    }
    let request = vec![
        ("resourceAttributes", object("ResourceAttributes", resource)),
        ("nonResourceAttributes", object("NonResourceAttributes", vec![("path", text()), ("verb", text())])),
        ("user", text()),
        ("groups", list(text())),
        ("extra", decl(DeclType::Map(list(text())))),
        ("uid", text()),
    ];
    Scope::default().declare("request", &object("SubjectAccessReviewSpec", request))
});

fn decl(r#type: DeclType) -> Arc<Decl> {
    Arc::new(Decl { r#type, max_elements: u64::MAX, min_size: 0 })
}

fn text() -> Arc<Decl> {
    decl(DeclType::Scalar(Type::String))
}

fn list(item: Arc<Decl>) -> Arc<Decl> {
    decl(DeclType::List(item))
}

/// Compiles one expression.
pub fn compile_condition(text: &str) -> Result<Program, ExpressionCompileError> {
    compile(text, &SCOPE, &Type::Bool)
}

impl AccessConditions {
    /// Compiles them all.
    pub fn compile<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, ExpressionCompileError> {
        let all = texts.into_iter().map(|text| Ok((text.to_owned(), compile_condition(text)?)));
        Ok(Self(all.collect::<Result<_, _>>()?))
    }

    /// Whether the spec of a review meets them all. One that is false decides, whatever fails beside it.
    pub fn hold(&self, spec: &Value) -> Result<bool, AccessConditionsError> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let mut seen = spec.clone();
        complete(&mut seen);
        let activation = Activation::default().with("request", Cel::of(&seen, None));
        let mut errors = Vec::new();
        for (text, program) in &self.0 {
            match program.evaluate(&activation).value {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(_) => errors.push(ConditionError::NoBoolean(text.clone())),
                Err(error) => errors.push(ConditionError::Evaluation { text: text.clone(), error }),
            }
        }
        if errors.is_empty() { Ok(true) } else { Err(AccessConditionsError(errors)) }
    }
}

/// Fills in what is empty: expressions see every text, though a review leaves it out.
fn complete(spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else { return };
    for field in ["user", "uid"] {
        fields.entry(field).or_insert_with(|| "".into());
    }
    fields.entry("groups").or_insert_with(|| Value::Array(Vec::new()));
    fields.entry("extra").or_insert_with(|| Value::Object(serde_json::Map::new()));
    if let Some(resource) = fields.get_mut("resourceAttributes").and_then(Value::as_object_mut) {
        for field in ["namespace", "verb", "group", "version", "resource", "subresource", "name"] {
            resource.entry(field).or_insert_with(|| "".into());
        }
        let namespace = resource.get("namespace").cloned().unwrap_or_default();
        resource.insert("__namespace__".to_owned(), namespace);
    }
}

fn shown(errors: &[ConditionError]) -> String {
    match errors {
        [one] => one.to_string(),
        many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_see_the_review_with_all_its_texts() {
        let holds = |texts: &[&str], spec: Value| {
            let conditions = AccessConditions::compile(texts.iter().copied()).unwrap();
            conditions.hold(&spec).map_err(|error| error.to_string())
        };
        let pods = json!({"user": "jane", "groups": ["dev"],
            "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "a"}});
        for text in [
            "has(request.resourceAttributes)",
            "!has(request.nonResourceAttributes)",
            "request.resourceAttributes.__namespace__ == 'a' && request.resourceAttributes.name == ''",
            "!('system:serviceaccounts:kube-system' in request.groups)",
            "request.uid == '' && request.extra.size() == 0",
        ] {
            assert_eq!(holds(&[text], pods.clone()), Ok(true), "{text}");
        }
        assert_eq!(holds(&[], json!({})), Ok(true));
        assert_eq!(holds(&["request.user == 'joe'"], pods.clone()), Ok(false));
        let fails = "request.nonResourceAttributes.path == '/'";
        assert!(
            holds(&[fails], pods.clone()).unwrap_err().starts_with("cel evaluation error: expression 'request.non")
        );
        assert_eq!(holds(&[fails, "false"], pods), Ok(false), "one that is false decides");
        for (wrong, why) in [
            ("request.user", "must evaluate to bool but got string"),
            ("request.nothing == ''", "compilation failed: ERROR: <input>:1:8: undefined field 'nothing'"),
        ] {
            let error = compile_condition(wrong).unwrap_err().to_string();
            assert!(error.starts_with(why), "{error}");
        }
    }
}
