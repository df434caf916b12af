//! A binding puts a policy to work: where, with which parameters, and what becomes of a violation.

use std::sync::Arc;

use serde_json::{Value, json};

use super::resources::MatchResources;
use crate::{
    admission::{attributes::Attributes, namespace},
    kinds::label_selector,
    store::{Object, Snapshot},
};

/// A binding, read once.
#[derive(Debug)]
pub struct Binding {
    /// Its own.
    pub name: String,
    /// Of the policy.
    pub policy: String,
    /// Where it puts the policy to work; `None` for everywhere.
    pub resources: Option<MatchResources>,
    /// What becomes of a violation. Mutating policies have none.
    pub actions: Vec<ValidationAction>,
    params: Value,
}

/// What a policy is evaluated with. It is read when its turn comes: a selector takes as many objects as there are.
#[derive(Clone, Debug)]
pub enum Param {
    /// The policy has no parameters, or the binding names none.
    None,
    /// As the store has it.
    Object(Arc<Object>),
}

/// Why a policy cannot be evaluated as a binding says. The words are those of Kubernetes.
#[derive(Debug, thiserror::Error)]
pub enum ParamsError {
    /// Objects of that kind are not stored.
    #[error("paramKind kind `{api_version}, Kind={kind}` not known")]
    UnknownKind {
        /// Group and version.
        api_version: String,
        /// Its name.
        kind: String,
    },
    /// The parameters have the namespace of the request, which has none.
    #[error("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")]
    NoNamespace,
    /// There are none, and the binding does not allow that.
    #[error("no params found for policy binding with `Deny` parameterNotFoundAction")]
    NotFound,
}

/// A parameter that is stored, and is no JSON.
#[derive(Debug, thiserror::Error)]
#[error("failed to configure binding: the parameter {name:?} cannot be read")]
pub struct UnreadableParam {
    name: String,
    source: serde_json::Error,
}

impl Param {
    /// What expressions see of it; null where there is none.
    pub fn read(&self) -> Result<Value, UnreadableParam> {
        match self {
            Self::None => Ok(Value::Null),
            Self::Object(object) => serde_json::from_slice(&object.json())
                .map_err(|source| UnreadableParam { name: object.header().name().to_owned(), source }),
        }
    }
}

/// What becomes of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidationAction {
    /// The request is refused.
    Deny,
    /// The client is told.
    Warn,
    /// It is noted.
    Audit,
}

impl ValidationAction {
    /// As bindings spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Warn => "Warn",
            Self::Audit => "Audit",
        }
    }

    /// As metrics tell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Warn => "warn",
            Self::Audit => "audit",
        }
    }
}

impl Binding {
    /// Reads a stored binding.
    pub fn read(binding: &Value) -> Self {
        let (spec, text) = (&binding["spec"], |value: &Value| value.as_str().unwrap_or_default().to_owned());
        let actions = spec["validationActions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Self {
            name: text(&binding["metadata"]["name"]),
            policy: text(&spec["policyName"]),
            resources: spec["matchResources"].is_object().then(|| MatchResources::read(&spec["matchResources"])),
            actions: actions
                .filter_map(|action| match action {
                    "Deny" => Some(ValidationAction::Deny),
                    "Warn" => Some(ValidationAction::Warn),
                    "Audit" => Some(ValidationAction::Audit),
                    _ => None,
                })
                .collect(),
            params: spec["paramRef"].clone(),
        }
    }

    /// The parameters that the policy is evaluated with, once for each. `kind` is that of the policy's parameters.
    pub fn params(
        &self,
        kind: Option<&(String, String)>,
        attributes: &Attributes<'_>,
    ) -> Result<Vec<Param>, ParamsError> {
        let Some((api_version, kind)) = kind.filter(|_| self.params.is_object()) else { return Ok(vec![Param::None]) };
        let known = attributes.kinds.by_api_version(api_version, kind);
        let unknown = || ParamsError::UnknownKind { api_version: api_version.clone(), kind: kind.clone() };
        let known = known.ok_or_else(unknown)?;
        let stored = known.stored().ok_or_else(unknown)?;
        let namespace = match (known.namespaced, self.params["namespace"].as_str(), attributes.namespace()) {
            (false, ..) => String::new(),
            (true, Some(namespace), _) | (true, None, Some(namespace)) => format!("{namespace}/"),
            (true, None, None) => return Err(ParamsError::NoNamespace),
        };
        let (snapshot, resource) = (attributes.snapshot, stored.resource());
        let found: Vec<Param> = match self.params["name"].as_str().filter(|name| !name.is_empty()) {
            Some(name) => {
                let one = snapshot.get(&resource, &format!("{namespace}{name}"));
                one.map(|found| Param::Object(found.clone())).into_iter().collect()
            }
            None => {
                let selector = &self.params["selector"];
                let all = snapshot.list(&resource, &namespace, None);
                let selected = all.filter(|(_, found)| label_selector::selects(selector, &labels(found)));
                selected.map(|(_, found)| Param::Object(found.clone())).collect()
            }
        };
        match (found.is_empty(), self.params["parameterNotFoundAction"].as_str()) {
            (false, _) => Ok(found),
            (true, Some("Allow")) => Ok(Vec::new()),
            (true, _) => Err(ParamsError::NotFound),
        }
    }
}

/// The labels of a stored object, without a look at the rest of it.
fn labels(object: &Object) -> Value {
    let labels = object.header().labels().map(|(key, value)| (key.to_owned(), Value::from(value)));
    Value::Object(labels.collect())
}

/// What expressions see of the namespace of a request; null where it has none.
pub fn namespace_object(snapshot: &Snapshot, attributes: &Attributes<'_>) -> Value {
    const METADATA: [&str; 12] = [
        "name",
        "generateName",
        "namespace",
        "labels",
        "annotations",
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "finalizers",
    ];
    let found = attributes.namespace.and_then(|name| snapshot.get(namespace::RESOURCE, name));
    let Some(found) = found.and_then(|found| serde_json::from_slice::<Value>(&found.json()).ok()) else {
        return Value::Null;
    };
    let mut seen = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {}, "spec": {}, "status": {}});
    for field in METADATA {
        if !found["metadata"][field].is_null() {
            seen["metadata"][field] = found["metadata"][field].clone();
        }
    }
    for (part, field) in [("spec", "finalizers"), ("status", "phase")] {
        if !found[part][field].is_null() {
            seen[part][field] = found[part][field].clone();
        }
    }
    seen
}
