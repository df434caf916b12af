//! Which requests a policy or a binding is about: `MatchResources`.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy/matching`.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    admission::{
        attributes::Attributes,
        rules::{self, RequestRule},
        selectors::Selectors,
    },
    kinds::Kind,
    status::Status,
};

/// Selectors and rules, read once. Empty ones take every request.
#[derive(Clone, Debug, Default)]
pub struct MatchResources {
    selectors: Selectors,
    rules: Vec<RequestRule>,
    excluded: Vec<RequestRule>,
    /// Whether other versions of a resource are the same to the rules.
    equivalent: bool,
}

impl MatchResources {
    /// Reads them.
    pub fn read(resources: &Value) -> Self {
        Self {
            selectors: Selectors::read(resources),
            rules: RequestRule::all_of(&resources["resourceRules"]),
            excluded: RequestRule::all_of(&resources["excludeResourceRules"]),
            equivalent: resources["matchPolicy"] != "Exact",
        }
    }

    /// Whether the rules take requests like this one, whatever the objects are.
    pub fn concern(&self, attributes: &Attributes<'_>) -> bool {
        self.rules.is_empty() || rules::matching(&self.rules, self.equivalent, attributes).is_some()
    }

    /// As which kind they take a request, if they do.
    pub fn matching(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        old: &Value,
    ) -> Result<Option<Arc<Kind>>, Status> {
        let in_namespace = self.selectors.select_namespace(attributes, object);
        if matches!(in_namespace, Ok(false))
            || !self.selectors.select_object(object, old)
            || rules::matching(&self.excluded, self.equivalent, attributes).is_some()
        {
            return Ok(None);
        }
        let kind = match self.rules.is_empty() {
            true => Some(attributes.served.clone()),
            false => rules::matching(&self.rules, self.equivalent, attributes),
        };
        let Some(kind) = kind else { return Ok(None) };
        in_namespace.map(|_| Some(kind))
    }
}
