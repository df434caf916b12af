//! The priority levels and flow schemas that every cluster has: `bootstrap.json`, read once. Those named `exempt` and
//! `catch-all` are mandatory and cannot be changed; the others are suggested.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use serde_json::{Value, json};

use super::GROUP;

/// Names of the mandatory objects of both kinds.
pub const MANDATORY: [&str; 2] = ["exempt", "catch-all"];
/// While it is `true`, the API keeps the object as this version of it has it.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Data {
    priority_levels: BTreeMap<String, Value>,
    flow_schemas: BTreeMap<String, Schema>,
}

/// A flow schema in short form. Rules that are not said are those for every request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Schema {
    level: String,
    precedence: i32,
    by: Option<String>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    /// In `kube-system`.
    #[serde(default)]
    service_accounts: Vec<String>,
    resource_rules: Option<Value>,
    non_resource_rules: Option<Value>,
}

static DATA: LazyLock<Data> = LazyLock::new(|| {
    serde_json::from_str(include_str!("bootstrap.json")).expect("the file is checked by this module's test")
});

/// The specs of the priority levels by name.
pub fn priority_levels() -> impl Iterator<Item = (&'static str, Value)> {
    DATA.priority_levels.iter().map(|(name, spec)| (name.as_str(), spec.clone()))
}

/// The specs of the flow schemas by name.
pub fn flow_schemas() -> impl Iterator<Item = (&'static str, Value)> {
    DATA.flow_schemas.iter().map(|(name, schema)| (name.as_str(), schema.spec()))
}

/// All objects, whole.
pub fn objects() -> impl Iterator<Item = Value> {
    let levels = priority_levels().map(|(name, spec)| object("PriorityLevelConfiguration", name, &spec));
    levels.chain(flow_schemas().map(|(name, spec)| object("FlowSchema", name, &spec)))
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "spec": spec,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}})
}

impl Schema {
    fn spec(&self) -> Value {
        let users = self.users.iter().map(|name| json!({"kind": "User", "user": {"name": name}}));
        let groups = self.groups.iter().map(|name| json!({"kind": "Group", "group": {"name": name}}));
        let accounts = self.service_accounts.iter().map(
            |name| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}}),
        );
        let mut rule = json!({"subjects": users.chain(groups).chain(accounts).collect::<Vec<_>>()});
        let everything = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true,
            "namespaces": ["*"]}]);
        let every_path = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
        for (field, given, all) in [
            ("resourceRules", &self.resource_rules, everything),
            ("nonResourceRules", &self.non_resource_rules, every_path),
        ] {
            let rules = given.clone().unwrap_or(all);
            if rules.as_array().is_some_and(|rules| !rules.is_empty()) {
                rule[field] = rules;
            }
        }
        let mut spec = json!({"priorityLevelConfiguration": {"name": self.level},
            "matchingPrecedence": self.precedence});
        if let Some(by) = &self.by {
            spec["distinguisherMethod"] = json!({"type": by});
        }
        spec["rules"] = json!([rule]);
        spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::flowcontrol::{flow_schema, priority_level_configuration};

    #[test]
    fn every_object_is_valid_complete_and_refers_to_a_level() {
        assert_eq!((priority_levels().count(), flow_schemas().count()), (8, 11));
        for object in objects() {
            let kind = match object["kind"].as_str() {
                Some("FlowSchema") => &flow_schema::KIND,
                _ => &priority_level_configuration::KIND,
            };
            assert_eq!((kind.validate)(&object, None), [], "{object}");
            let mut filled = object.clone();
            (kind.default)(&mut filled);
            assert_eq!(filled, object, "the file leaves no default out");
        }
        for (name, spec) in flow_schemas() {
            let level = spec["priorityLevelConfiguration"]["name"].as_str().unwrap();
            assert!(priority_levels().any(|(name, _)| name == level), "{name}");
        }
    }
}
