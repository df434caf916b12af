//! Which namespaces and objects a webhook or policy is about: `namespaceSelector` and `objectSelector`.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/{namespace,object}`.

use serde_json::{Map, Value};

use super::{
    attributes::{Attributes, Operation},
    namespace,
};
use crate::{
    kinds::label_selector,
    status::{Status, Subject},
};

/// Both selectors of a webhook, policy or binding.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    /// `None` where it selects everything.
    namespace: Option<Value>,
    /// `None` where it selects everything.
    object: Option<Value>,
}

impl Selectors {
    /// Reads them from the object that has them as fields.
    pub fn read(of: &Value) -> Self {
        let one = |selector: &Value| (!label_selector::is_empty(selector)).then(|| selector.clone());
        Self { namespace: one(&of["namespaceSelector"]), object: one(&of["objectSelector"]) }
    }

    /// Whether the namespace of the request is selected. An error if it does not exist, which counts only if all else
    /// selects the request.
    pub fn select_namespace(&self, attributes: &Attributes<'_>, object: &Value) -> Result<bool, Status> {
        let Some(selector) = &self.namespace else { return Ok(true) };
        let is_written = matches!(attributes.operation, Operation::Create | Operation::Update);
        if attributes.is_namespace() && attributes.subresource.is_none() && is_written {
            // Its labels as they will be.
            return Ok(label_selector::selects(selector, &object["metadata"]["labels"]));
        }
        // Objects without namespace are never left out by it.
        let Some(name) = attributes.namespace() else { return Ok(true) };
        let Some(found) = attributes.snapshot.get(namespace::RESOURCE, name) else {
            return Err(Status::not_found(Subject { group: "", resource: namespace::RESOURCE, name }));
        };
        let labels = found.header().labels().map(|(key, value)| (key.to_owned(), Value::from(value)));
        Ok(label_selector::selects(selector, &Value::Object(labels.collect::<Map<_, _>>())))
    }

    /// Whether the new or the old object has the labels.
    pub fn select_object(&self, object: &Value, old: &Value) -> bool {
        let Some(selector) = &self.object else { return true };
        let selected =
            |object: &Value| object.is_object() && label_selector::selects(selector, &object["metadata"]["labels"]);
        selected(object) || selected(old)
    }
}
