//! Which resources and operations a webhook or policy is about: `RuleWithOperations` and `matchPolicy`.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/rules`.

use std::sync::Arc;

use serde_json::Value;

use super::attributes::Attributes;
use crate::kinds::Kind;

/// One rule, read.
#[derive(Clone, Debug)]
pub struct RequestRule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<Pattern>,
    scope: ScopeRule,
    /// Policies alone name objects; none means all.
    names: Vec<String>,
}

/// `pods`, `pods/status`, `*`, `*/*`, `pods/*`, `*/scale`
#[derive(Clone, Debug)]
struct Pattern {
    resource: String,
    /// Empty for the object itself.
    subresource: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScopeRule {
    All,
    Namespaced,
    Cluster,
}

impl RequestRule {
    /// Reads a list of rules.
    pub fn all_of(rules: &Value) -> Vec<Self> {
        rules.as_array().into_iter().flatten().map(Self::read).collect()
    }

    fn read(rule: &Value) -> Self {
        let texts = |field: &str| {
            let list = rule[field].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<String>>()
        };
        let patterns = texts("resources").into_iter().map(|text| {
            let (resource, subresource) = text.split_once('/').unwrap_or((&text, ""));
            Pattern { resource: resource.to_owned(), subresource: subresource.to_owned() }
        });
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: patterns.collect(),
            scope: match rule["scope"].as_str() {
                Some("Namespaced") => ScopeRule::Namespaced,
                Some("Cluster") => ScopeRule::Cluster,
                _ => ScopeRule::All,
            },
            names: texts("resourceNames"),
        }
    }

    /// Whether the rule takes the request, taken as one for `kind`.
    fn takes(&self, attributes: &Attributes<'_>, kind: &Kind) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        let subresource = attributes.subresource.unwrap_or_default();
        let scope = match self.scope {
            ScopeRule::All => true,
            // A namespace is no object of a namespace, although requests for it name one.
            ScopeRule::Namespaced => !attributes.is_namespace() && attributes.namespace.is_some(),
            ScopeRule::Cluster => attributes.is_namespace() || attributes.namespace.is_none(),
        };
        scope
            && has(&self.operations, attributes.operation.as_str())
            && has(&self.groups, &kind.group)
            && has(&self.versions, &kind.version)
            && (self.names.is_empty() || self.names.iter().any(|name| *name == attributes.name))
            && self.resources.iter().any(|Pattern { resource: of, subresource: sub }| {
                (of == "*" || *of == *kind.plural) && (sub == "*" || sub == subresource)
            })
    }
}

/// As which kind the rules take the request: as the one that it names, or with `equivalent` as another version of it.
pub fn matching(rules: &[RequestRule], equivalent: bool, attributes: &Attributes<'_>) -> Option<Arc<Kind>> {
    if rules.iter().any(|rule| rule.takes(attributes, attributes.served)) {
        return Some(attributes.served.clone());
    }
    if !equivalent {
        return None;
    }
    // Earlier rules first.
    let found = |rule: &RequestRule| attributes.equivalents().find(|kind| rule.takes(attributes, kind)).cloned();
    rules.iter().find_map(found)
}
