//! FlowSchema: which requests belong to which priority level.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{GROUP, bootstrap, conditions, items, text};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, names, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "FlowSchema",
    plural: "flowschemas",
    singular: "flowschema",
    namespaced: false,
    subresources: &["status"],
    default: |object| {
        // A spec that nobody sent is there with its zeros, as in Go.
        if object["spec"].is_null() {
            object["spec"] = json!({});
        }
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
            && spec.get("matchingPrecedence").and_then(Value::as_i64).unwrap_or(0) == 0
        {
            spec.insert("matchingPrecedence".into(), json!(1000));
        }
    },
    validate,
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({}));
        prepare::count_generation(new, old);
    },
    columns: &[
        Column::name(),
        Column::text("PriorityLevel", "The priority level of the requests."),
        Column::text("MatchingPrecedence", "Which of several schemas takes a request: the lowest number."),
        Column::text("DistinguisherMethod", "What makes requests one flow."),
        Column::age(),
        Column::text("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
    ],
    cells: |object| {
        let spec = &object["spec"];
        let dangling = items(&object["status"], "conditions").iter().find(|c| c["type"] == "Dangling");
        vec![
            Cell::name(object),
            Cell::text(text(&spec["priorityLevelConfiguration"], "name")),
            Cell::integer(spec["matchingPrecedence"].as_i64().unwrap_or_default()),
            Cell::text(spec["distinguisherMethod"]["type"].as_str().unwrap_or("<none>")),
            Cell::age(object),
            Cell::text(dangling.map_or("?", |condition| text(condition, "status"))),
        ]
    },
    schema: "io.k8s.api.flowcontrol.v1.FlowSchema",
    ..BuiltIn::PLAIN
};

const MAX_PRECEDENCE: i64 = 10_000;
const METHODS: [&str; 2] = ["ByNamespace", "ByUser"];
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let (spec, name) = (&new["spec"], text(&new["metadata"], "name"));
    let mut errors = Vec::new();
    let precedence = &spec["matchingPrecedence"];
    let mut wrong = |why: String| errors.push(FieldError::invalid("spec.matchingPrecedence", precedence, why));
    match precedence.as_i64().unwrap_or(0) {
        ..=0 => wrong("must be a positive value".into()),
        1 if name != "exempt" => wrong("only the schema named 'exempt' may have matchingPrecedence 1".into()),
        number if number > MAX_PRECEDENCE => wrong(format!("must not be greater than {MAX_PRECEDENCE}")),
        _ => {}
    }
    let method = &spec["distinguisherMethod"];
    if !method.is_null() && !METHODS.contains(&text(method, "type")) {
        let shown = json!({"Type": method["type"]});
        errors.push(FieldError::not_supported("spec.distinguisherMethod.type", &shown, &METHODS));
    }
    let level = &spec["priorityLevelConfiguration"]["name"];
    let path = "spec.priorityLevelConfiguration.name";
    match level.as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required(path, "must reference a priority level")),
        text => errors.extend(FieldError::invalid_each(path, level, names::subdomain(text))),
    }
    for (i, rule) in items(spec, "rules").iter().enumerate() {
        errors.extend(rule_errors(&format!("spec.rules[{i}]"), rule));
    }
    let fixed =
        bootstrap::flow_schemas().filter(|(of, _)| bootstrap::MANDATORY.contains(of)).find(|(of, _)| *of == name);
    if fixed.is_some_and(|(_, fixed)| fixed != *spec) {
        errors.push(FieldError::invalid("spec", spec, format!("spec of '{name}' must equal the fixed value")));
    }
    errors.extend(conditions(&new["status"]));
    errors
}

fn rule_errors(path: &str, rule: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let subjects = items(rule, "subjects");
    if subjects.is_empty() {
        errors.push(FieldError::required(format!("{path}.subjects"), "subjects must contain at least one value"));
    }
    for (i, subject) in subjects.iter().enumerate() {
        errors.extend(subject_errors(&format!("{path}.subjects[{i}]"), subject));
    }
    let (resources, paths) = (items(rule, "resourceRules"), items(rule, "nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, why));
    }
    for (i, rule) in resources.iter().enumerate() {
        errors.extend(resource_rule(&format!("{path}.resourceRules[{i}]"), rule));
    }
    for (i, rule) in paths.iter().enumerate() {
        errors.extend(path_rule(&format!("{path}.nonResourceRules[{i}]"), rule));
    }
    errors
}

fn subject_errors(path: &str, subject: &Value) -> Vec<FieldError> {
    const FIELDS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = text(subject, "kind");
    let Some((_, field)) = FIELDS.into_iter().find(|(of, _)| *of == kind) else {
        let kinds = ["Group", "ServiceAccount", "User"];
        return vec![FieldError::not_supported(format!("{path}.kind"), &subject["kind"], &kinds)];
    };
    let mut errors = Vec::new();
    let (value, own) = (&subject[field], format!("{path}.{field}"));
    if value.is_null() {
        errors.push(FieldError::required(own, &format!("{field} is required when subject kind is '{kind}'")));
    } else {
        let name = text(value, "name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{own}.name"), ""));
        }
        if kind == "ServiceAccount" {
            if !matches!(name, "" | "*") {
                let wrong = names::subdomain(name);
                errors.extend(FieldError::invalid_each(format!("{own}.name"), &value["name"], wrong));
            }
            match text(value, "namespace") {
                "" => {
                    let why = "must specify namespace for service account";
                    errors.push(FieldError::required(format!("{own}.namespace"), why));
                }
                namespace => {
                    let wrong = names::label(namespace);
                    errors.extend(FieldError::invalid_each(format!("{own}.namespace"), &value["namespace"], wrong));
                }
            }
        }
    }
    for (other_kind, other) in FIELDS.into_iter().filter(|(of, _)| *of != kind) {
        if !subject[other].is_null() {
            let why = format!("{other} is forbidden when subject kind is not '{other_kind}'");
            errors.push(FieldError::forbidden(format!("{path}.{other}"), &why));
        }
    }
    errors
}

/// Why a list is neither `*` alone nor a list of other items.
fn star_alone(path: &str, rule: &Value, field: &str, missing: &str, words: &str) -> Vec<FieldError> {
    let list = items(rule, field);
    let path = format!("{path}.{field}");
    if list.is_empty() {
        return vec![FieldError::required(path, missing)];
    }
    if list.len() > 1 && list.iter().any(|item| item == "*") {
        let why = format!("if '*' is present, must not specify other {words}");
        return vec![FieldError::invalid(path, &rule[field], why)];
    }
    Vec::new()
}

fn verbs(path: &str, rule: &Value) -> Vec<FieldError> {
    let mut errors = star_alone(path, rule, "verbs", "verbs must contain at least one value", "verbs");
    let list = items(rule, "verbs");
    let known: BTreeSet<&str> = VERBS.into_iter().collect();
    let unknown = list.iter().any(|verb| verb.as_str().is_none_or(|verb| !known.contains(verb)));
    if unknown && !list.iter().any(|verb| verb == "*") {
        errors.push(FieldError::not_supported(format!("{path}.verbs"), &rule["verbs"], &VERBS));
    }
    errors
}

fn resource_rule(path: &str, rule: &Value) -> Vec<FieldError> {
    let mut errors = verbs(path, rule);
    let missing = |what: &str| format!("resource rules must supply at least one {what}");
    errors.extend(star_alone(path, rule, "apiGroups", &missing("api group"), "api groups"));
    errors.extend(star_alone(path, rule, "resources", &missing("resource"), "resources"));
    let namespaces = items(rule, "namespaces");
    if namespaces.is_empty() && rule["clusterScope"] == true {
        return errors;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    errors.extend(star_alone(path, rule, "namespaces", missing, "namespaces"));
    if namespaces.iter().any(|namespace| namespace == "*") {
        return errors;
    }
    for (i, namespace) in namespaces.iter().enumerate() {
        let explain = |why| format!("each member of this list must be '*' or a DNS-1123 label; {why}");
        let wrong = names::label(namespace.as_str().unwrap_or_default()).into_iter().map(explain).collect();
        errors.extend(FieldError::invalid_each(format!("{path}.namespaces[{i}]"), namespace, wrong));
    }
    errors
}

fn path_rule(path: &str, rule: &Value) -> Vec<FieldError> {
    const FIELD: &str = "nonResourceURLs";
    let missing = "nonResourceURLs must contain at least one value";
    let mut errors = verbs(path, rule);
    errors.extend(star_alone(path, rule, FIELD, missing, "non-resource URLs"));
    let list = items(rule, FIELD);
    if list.iter().any(|url| url == "*") {
        return errors;
    }
    for (i, url) in list.iter().enumerate() {
        let text = url.as_str().unwrap_or_default();
        let stars = text.matches('*').count();
        let why = if text.is_empty() {
            "must not be empty"
        } else if text == "/" {
            continue;
        } else if !text.starts_with('/') {
            "must start with slash"
        } else if text.contains(' ') {
            "must not contain white-space"
        } else if text.contains("//") {
            "must not contain double slash"
        } else if stars > 1 || stars == 1 && !text.ends_with("/*") {
            "wildcard can only do suffix matching"
        } else {
            continue;
        };
        errors.push(FieldError::invalid(format!("{path}.{FIELD}[{i}]"), url, why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, spec: Value) -> Vec<String> {
        let mut schema = json!({"metadata": {"name": name}, "spec": spec});
        (KIND.default)(&mut schema);
        validate(&schema, None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    fn spec(rule: Value) -> Value {
        json!({"priorityLevelConfiguration": {"name": "system"}, "rules": [rule]})
    }

    #[test]
    fn a_schema_without_a_spec_has_the_usual_precedence() {
        let words = words("s", json!(null));
        assert!(words.iter().all(|words| !words.contains("matchingPrecedence")), "{words:?}");
    }

    #[test]
    fn a_schema_has_a_level_and_rules_with_subjects() {
        let subjects = json!([{"kind": "User", "user": {"name": "a"}}]);
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]});
        assert!(words("s", spec(json!({"subjects": subjects, "resourceRules": [pods]}))).is_empty());
        assert_eq!(
            words("s", json!({"matchingPrecedence": 1})),
            [
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            ]
        );
        let bad = json!({"subjects": [{"kind": "Group", "user": {"name": "a"}}, {"kind": "Robot"}],
            "resourceRules": [{"verbs": ["fly"], "apiGroups": ["*", "a"], "resources": []}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["a", "/a*", "/b/*"]}]});
        assert_eq!(
            words("s", spec(bad)),
            [
                "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
                "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
                "spec.rules[0].subjects[1].kind: Unsupported value: \"Robot\": supported values: \"Group\", \
                 \"ServiceAccount\", \"User\"",
                "spec.rules[0].resourceRules[0].verbs: Unsupported value: [\"fly\"]: supported values: \"create\", \
                 \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
                "spec.rules[0].resourceRules[0].apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not \
                 specify other api groups",
                "spec.rules[0].resourceRules[0].resources: Required value: resource rules must supply at least one \
                 resource",
                "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster \
                 scoped must supply at least one namespace",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"a\": must start with slash",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/a*\": wildcard can only do \
                 suffix matching",
            ]
        );
    }

    #[test]
    fn a_mandatory_schema_cannot_change() {
        let (_, mut spec) = bootstrap::flow_schemas().find(|(name, _)| *name == "catch-all").unwrap();
        assert!(words("catch-all", spec.clone()).is_empty());
        spec["matchingPrecedence"] = json!(9999);
        assert!(words("catch-all", spec.clone())[0].ends_with("spec of 'catch-all' must equal the fixed value"));
        assert!(words("other", spec).is_empty());
    }
}
