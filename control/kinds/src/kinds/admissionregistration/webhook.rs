//! What the webhooks of both configurations share: defaults and reasons against. Mutating ones have a reinvocation
//! policy, too.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{CATEGORIES, GROUP, expressions, is_unknown, items, rule, scope::KnownNames, text};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, label_selector, names, pod::defaults::fill, port, prepare};

/// The declaration of a kind of configurations, but for its names, schema, defaults and validation.
pub const CONFIGURATION: BuiltIn = BuiltIn {
    group: GROUP,
    categories: CATEGORIES,
    namespaced: false,
    prepare_sent: Some(prepare::count_sent_generation),
    columns: &[
        Column::name(),
        Column::integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
        Column::age(),
    ],
    cells: |configuration| {
        let count = i64::try_from(items(configuration, "webhooks").len()).unwrap_or(i64::MAX);
        vec![Cell::name(configuration), Cell::integer(count), Cell::age(configuration)]
    },
    updates_name_version: true,
    ..BuiltIn::PLAIN
};

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const REINVOCATION: [&str; 2] = ["IfNeeded", "Never"];
/// Versions of AdmissionReview that the API sends.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Fills in what a configuration's webhooks do not say.
pub fn default(configuration: &mut Value, mutating: bool) {
    for hook in configuration.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        fill(hook, "failurePolicy", || json!("Fail"));
        fill(hook, "matchPolicy", || json!("Equivalent"));
        fill(hook, "namespaceSelector", || json!({}));
        fill(hook, "objectSelector", || json!({}));
        fill(hook, "timeoutSeconds", || json!(10));
        if mutating {
            fill(hook, "reinvocationPolicy", || json!("Never"));
        }
        rule::default(hook.get_mut("rules"));
        if hook["clientConfig"]["service"].is_object() {
            fill(&mut hook["clientConfig"]["service"], "port", || json!(443));
        }
    }
}

/// What an update need not meet, because the object it replaces did not either.
struct Options {
    match_conditions: bool,
    no_side_effects: bool,
    known_version: bool,
    unique_names: bool,
}

impl Options {
    fn of(new: &Value, old: Option<&Value>) -> Self {
        let Some(old) = old else {
            return Self { match_conditions: true, no_side_effects: true, known_version: true, unique_names: true };
        };
        let (new, old) = (items(new, "webhooks"), items(old, "webhooks"));
        let conditions = |hooks: &[Value]| hooks.iter().map(|hook| items(hook, "matchConditions").to_vec()).collect();
        let (new_conditions, old_conditions): (Vec<Vec<Value>>, Vec<Vec<Value>>) = (conditions(new), conditions(old));
        let names: BTreeSet<&str> = old.iter().map(|hook| text(hook, "name")).collect();
        Self {
            match_conditions: new_conditions != old_conditions,
            no_side_effects: old.iter().all(|hook| NO_SIDE_EFFECTS.contains(&text(hook, "sideEffects"))),
            known_version: old.iter().all(|hook| {
                let versions = items(hook, "admissionReviewVersions");
                versions.is_empty() || has_known_version(versions)
            }),
            unique_names: names.len() == old.len(),
        }
    }
}

fn has_known_version(versions: &[Value]) -> bool {
    versions.iter().any(|version| version.as_str().is_some_and(|version| REVIEW_VERSIONS.contains(&version)))
}

/// Why a configuration may not stand.
pub fn validate(new: &Value, old: Option<&Value>, mutating: bool) -> Vec<FieldError> {
    let options = Options::of(new, old);
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, hook) in items(new, "webhooks").iter().enumerate() {
        let path = format!("webhooks[{i}]");
        errors.extend(hook_errors(&path, hook, &options, mutating));
        let versions = items(hook, "admissionReviewVersions");
        errors.extend(review_versions(&format!("{path}.admissionReviewVersions"), versions, options.known_version));
        let name = text(hook, "name");
        if options.unique_names && !name.is_empty() && !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &hook["name"]));
        }
    }
    errors
}

fn hook_errors(path: &str, hook: &Value, options: &Options, mutating: bool) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> =
        names::fully_qualified(&format!("{path}.name"), &hook["name"]).into_iter().collect();
    for (i, one) in items(hook, "rules").iter().enumerate() {
        errors.extend(rule::validate(&format!("{path}.rules[{i}]"), one));
    }
    let effects: &[&str] = if options.no_side_effects { &NO_SIDE_EFFECTS } else { &SIDE_EFFECTS };
    let one_of = |field: &str, supported: &[&str]| {
        let unknown = is_unknown(&hook[field], supported);
        unknown.then(|| FieldError::not_supported(format!("{path}.{field}"), &hook[field], supported))
    };
    errors.extend(one_of("failurePolicy", &FAILURE_POLICIES));
    errors.extend(one_of("matchPolicy", &MATCH_POLICIES));
    if hook["sideEffects"].is_null() {
        let why = format!("must specify one of {}", effects.join(", "));
        errors.push(FieldError::required(format!("{path}.sideEffects"), &why));
    }
    errors.extend(one_of("sideEffects", effects));
    let timeout = &hook["timeoutSeconds"];
    if timeout.as_i64().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(format!("{path}.timeoutSeconds"), timeout, why));
    }
    for field in ["namespaceSelector", "objectSelector"] {
        errors.extend(label_selector::validate(&format!("{path}.{field}"), &hook[field]));
    }
    if mutating {
        errors.extend(one_of("reinvocationPolicy", &REINVOCATION));
    }
    errors.extend(client_config(&format!("{path}.clientConfig"), &hook["clientConfig"]));
    if options.match_conditions {
        let path = format!("{path}.matchConditions");
        errors.extend(expressions::match_conditions(
            &path,
            items(hook, "matchConditions"),
            &KnownNames::default().for_conditions(),
        ));
    }
    errors
}

fn review_versions(path: &str, versions: &[Value], known_version: bool) -> Vec<FieldError> {
    let list = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return vec![FieldError::required(path, &format!("must specify one of {list}"))];
    }
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let text = version.as_str().unwrap_or_default();
        if !seen.insert(text) {
            errors.push(FieldError::invalid(path, version, "duplicate version"));
            continue;
        }
        errors.extend(FieldError::invalid_each(path, version, names::label_1035(text)));
    }
    if known_version && !has_known_version(versions) {
        let why = format!("must include at least one of {list}");
        errors.push(FieldError::invalid(path, &versions.to_vec().into(), why));
    }
    errors
}

/// Why the address of a webhook may not stand: a URL, or a Service.
pub fn client_config(path: &str, config: &Value) -> Vec<FieldError> {
    match (config["url"].as_str(), config["service"].is_object()) {
        (Some(url), false) => url_errors(&format!("{path}.url"), url),
        (None, true) => service_errors(&format!("{path}.service"), &config["service"]),
        _ => vec![FieldError::required(path, "exactly one of url or service is required")],
    }
}

fn url_errors(path: &str, text: &str) -> Vec<FieldError> {
    const FORM: &str = "; desired format: https://host[/path]";
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (before, query) = before.split_once('?').unwrap_or((before, ""));
    let (scheme, rest) = before.split_once("://").unwrap_or(("", before));
    if text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        let why = format!("url must be a valid URL: parse {text:?}: invalid character in URL{FORM}");
        return vec![FieldError::required(path, &why)];
    }
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let mut errors = Vec::new();
    let mut wrong = |shown: &str, why: String| errors.push(FieldError::invalid(path, &shown.into(), why));
    if scheme != "https" {
        wrong(scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        wrong(host, format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        wrong(user, "user information is not permitted in the URL".into());
    }
    if !fragment.is_empty() {
        wrong(fragment, "fragments are not permitted in the URL".into());
    }
    if !query.is_empty() {
        wrong(query, "query parameters are not permitted in the URL".into());
    }
    errors
}

/// Why a Service may not be called.
pub fn service_errors(path: &str, service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    // Kubernetes takes the name for the namespace here, and the other way round.
    for (field, named) in [("namespace", "name"), ("name", "namespace")] {
        if text(service, field).is_empty() {
            errors.push(FieldError::required(format!("{path}.{named}"), ""));
        }
    }
    let port = &service["port"];
    if let Some(error) = port::number(format!("{path}.port"), port) {
        let why = error.message.rsplit(": ").next().unwrap_or_default().to_owned();
        errors.push(FieldError::invalid(error.path, port, format!("port is not valid: {why}")));
    }
    let Some(at) = service["path"].as_str().filter(|at| !at.is_empty() && *at != "/") else { return errors };
    let mut wrong = |why: String| errors.push(FieldError::invalid(format!("{path}.path"), &at.into(), why));
    if at == "//" {
        wrong("segment[0] may not be empty".into());
        return errors;
    }
    if !at.starts_with('/') {
        wrong("must start with a '/'".into());
    }
    let first = at.chars().next().map_or(0, char::len_utf8);
    let steps = &at[first..];
    for (i, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            wrong(format!("segment[{i}] may not be empty"));
            continue;
        }
        for why in names::subdomain(step) {
            wrong(format!("segment[{i}]: {why}"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(changes: Value) -> Value {
        let mut hook = json!({"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "a", "name": "b", "path": "/mutate"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
        for (field, value) in changes.as_object().unwrap() {
            hook[field] = value.clone();
        }
        hook
    }

    fn words(hooks: Vec<Value>, old: Option<Value>) -> Vec<String> {
        let mut new = json!({"webhooks": hooks});
        default(&mut new, true);
        let old = old.map(|hook| json!({"webhooks": [hook]}));
        validate(&new, old.as_ref(), true).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn what_a_webhook_does_not_say_is_filled_in() {
        let mut configuration = json!({"webhooks": [hook(json!({}))]});
        default(&mut configuration, true);
        let filled = &configuration["webhooks"][0];
        let expected = json!({"failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {},
            "objectSelector": {}, "timeoutSeconds": 10, "reinvocationPolicy": "Never"});
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(filled[field], *value, "{field}");
        }
        assert_eq!(filled["rules"][0]["scope"], "*");
        assert_eq!(filled["clientConfig"]["service"]["port"], 443);
        assert!(words(vec![hook(json!({}))], None).is_empty());
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        let one = |changes: Value| words(vec![hook(changes)], None);
        for (changes, expected) in [
            (
                json!({"name": "a.b"}),
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated \
                 by dots",
            ),
            (
                json!({"sideEffects": "Some"}),
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ),
            (
                json!({"sideEffects": null}),
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                json!({"timeoutSeconds": 31}),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                json!({"admissionReviewVersions": []}),
                "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
            ),
            (
                json!({"admissionReviewVersions": ["v2"]}),
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ),
            (
                json!({"clientConfig": {}}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ),
            (
                json!({"clientConfig": {"url": "http://a/b"}}),
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; \
                 desired format: https://host[/path]",
            ),
            (
                json!({"clientConfig": {"service": {"namespace": "a", "name": "b", "port": 0}}}),
                "webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and \
                 65535, inclusive",
            ),
            (
                json!({"clientConfig": {"service": {"namespace": "a", "name": "b", "path": "/a//b"}}}),
                "webhooks[0].clientConfig.service.path: Invalid value: \"/a//b\": segment[1] may not be empty",
            ),
        ] {
            assert_eq!(one(changes), [expected]);
        }
        let twice = words(vec![hook(json!({})), hook(json!({}))], None);
        assert_eq!(twice, ["webhooks[1].name: Duplicate value: \"a.example.com\""]);
        assert_eq!(one(json!({"clientConfig": {"url": "https://u@/?a#b"}})).len(), 4);
    }

    #[test]
    fn a_condition_that_cannot_be_compiled_is_told_beside_the_rest() {
        let hook = hook(json!({"matchConditions": [{"name": "a", "expression": "a"}], "admissionReviewVersions": []}));
        let words = words(vec![hook], None);
        assert!(words[0].starts_with("webhooks[0].matchConditions[0].expression: Invalid value: \"a\": compilation"));
        assert_eq!(words[1], "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1");
    }

    #[test]
    fn an_update_need_not_be_better_than_what_it_replaces() {
        let old = hook(json!({"sideEffects": "Some", "admissionReviewVersions": ["v2"],
            "matchConditions": [{"name": "a", "expression": ""}]}));
        assert_eq!(words(vec![old.clone()], Some(old.clone())), Vec::<String>::new());
        assert_eq!(words(vec![old], None).len(), 3);
    }
}
