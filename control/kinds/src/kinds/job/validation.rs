//! Reasons why a Job, or the Job in a CronJob, may not be stored. Its status is `status`' business.

use serde_json::{Value, json};

use super::{NAME_LABELS, UID_LABELS, failure_policy, status, success_policy};
use crate::kinds::{
    FieldError, label_selector, names,
    reading::{entries, is_empty, number, same, text},
    workload,
};

const MAX_PARALLELISM: i64 = 100_000;
const MAX_FAILED_INDEXES: i64 = 100_000;
/// With more completions than these and a limit per index, the other two limits hold.
const MANY_COMPLETIONS: i64 = 100_000;
const MAX_PARALLELISM_WITH_MANY: i64 = 10_000;
const MAX_FAILED_INDEXES_WITH_MANY: i64 = 10_000;
const MAX_MANAGED_BY: usize = 63;

/// Why `new` may not be stored in the place of `old`.
pub fn job(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        errors.extend(generated_selector(new, old));
        errors.extend(validate_spec(&new["spec"]));
        errors.extend(hostname(new));
        errors.extend(old.map(|old| changes(&new["spec"], old)).unwrap_or_default());
    }
    if let Some(old) = workload::changes_status(new, old) {
        errors.extend(status::validate(new, old));
    }
    errors
}

/// Reasons against the spec of a Job in a CronJob, at `path`.
pub fn spec_at(path: &str, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.extend(FieldError::negative(format!("{path}.{field}"), &spec[field]));
    }
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        let why = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(format!("{path}.backoffLimitPerIndex"), why));
    }
    if let Some(manager) = spec["managedBy"].as_str() {
        let path = format!("{path}.managedBy");
        errors.extend(names::domain_prefixed_path(&path, &spec["managedBy"]));
        if manager.len() > MAX_MANAGED_BY {
            errors.push(FieldError::too_long(path, MAX_MANAGED_BY));
        }
    }
    let modes = ["NonIndexed", "Indexed"];
    errors.extend(FieldError::unsupported(format!("{path}.completionMode"), &spec["completionMode"], &modes));
    match spec["completionMode"].as_str() {
        Some("Indexed") => errors.extend(indexed(path, spec)),
        None | Some("NonIndexed") => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if !spec[field].is_null() {
                    let why = "requires indexed completion mode";
                    errors.push(FieldError::invalid(format!("{path}.{field}"), &spec[field], why));
                }
            }
        }
        Some(_) => {}
    }
    if !spec["podFailurePolicy"].is_null() {
        errors.extend(failure_policy::validate(&format!("{path}.podFailurePolicy"), spec));
    }
    if !spec["successPolicy"].is_null() {
        let path = format!("{path}.successPolicy");
        if spec["completionMode"] == "Indexed" {
            errors.extend(success_policy::validate(&path, spec));
        } else {
            let why = "requires indexed completion mode";
            errors.push(FieldError::invalid(path, &spec["successPolicy"], why));
        }
    }
    let replacements: &[&str] =
        if spec["podFailurePolicy"].is_null() { &["Failed", "TerminatingOrFailed"] } else { &["Failed"] };
    let replacement = &spec["podReplacementPolicy"];
    errors.extend(FieldError::unsupported(format!("{path}.podReplacementPolicy"), replacement, replacements));
    errors.extend(workload::template(&format!("{path}.template"), &spec["template"]));
    errors.extend(restart_policy(&format!("{path}.template.spec.restartPolicy"), spec));
    errors
}

/// Reasons against what a Job has that the one in a CronJob may not have, at `path`.
pub fn template_fields(path: &str, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !spec["selector"].is_null() {
        let why = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(format!("{path}.selector"), &spec["selector"], why));
    }
    if spec["manualSelector"] == true {
        errors.push(FieldError::not_supported(format!("{path}.manualSelector"), &json!(true), &["nil", "false"]));
    }
    errors
}

fn validate_spec(spec: &Value) -> Vec<FieldError> {
    let mut errors = spec_at("spec", spec);
    let selector = &spec["selector"];
    let wrong = label_selector::validate("spec.selector", selector);
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    }
    if wrong.is_empty() && !(selector.is_object() && label_selector::is_empty(selector)) {
        errors.extend(workload::finds_template(selector, &spec["template"]));
    }
    errors.extend(wrong);
    errors
}

fn indexed(path: &str, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (completions, parallelism, failed) = (&spec["completions"], &spec["parallelism"], &spec["maxFailedIndexes"]);
    let above = |value: &Value, most: i64| value.as_i64().is_some_and(|n| n > most);
    let mut invalid = |field: &str, why: String| {
        errors.push(FieldError::invalid(format!("{path}.{field}"), &spec[field], why));
    };
    if above(parallelism, MAX_PARALLELISM) {
        let why = format!("must be less than or equal to {MAX_PARALLELISM} when completion mode is Indexed");
        invalid("parallelism", why);
    }
    if completions.as_i64().is_some_and(|most| above(failed, most)) {
        invalid("maxFailedIndexes", "must be less than or equal to completions".to_owned());
    }
    if above(failed, MAX_FAILED_INDEXES) {
        invalid("maxFailedIndexes", format!("must be less than or equal to {MAX_FAILED_INDEXES}"));
    }
    let many = above(completions, MANY_COMPLETIONS) && !spec["backoffLimitPerIndex"].is_null();
    if many {
        let limit = |most: i64| {
            format!(
                "must be less than or equal to {most} when completions are above {MANY_COMPLETIONS} and used with backoff \
                 limit per index"
            )
        };
        if above(parallelism, MAX_PARALLELISM_WITH_MANY) {
            invalid("parallelism", limit(MAX_PARALLELISM_WITH_MANY));
        }
        if above(failed, MAX_FAILED_INDEXES_WITH_MANY) {
            invalid("maxFailedIndexes", limit(MAX_FAILED_INDEXES_WITH_MANY));
        }
    }
    if completions.is_null() {
        errors.push(FieldError::required(format!("{path}.completions"), "when completion mode is Indexed"));
    }
    if many && failed.is_null() {
        let why = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.push(FieldError::required(format!("{path}.maxFailedIndexes"), &why));
    }
    errors
}

fn restart_policy(path: &str, spec: &Value) -> Option<FieldError> {
    let policy = &spec["template"]["spec"]["restartPolicy"];
    match policy.as_str() {
        None | Some("" | "Always") => Some(FieldError::required(path, "valid values: \"OnFailure\", \"Never\"")),
        Some("OnFailure") if !spec["podFailurePolicy"].is_null() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            Some(FieldError::invalid(path, policy, why))
        }
        Some(_) => FieldError::unsupported(path, policy, &["OnFailure", "Never"]),
    }
}

/// Reasons against a selector that is not the one that the server makes.
fn generated_selector(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &new["spec"];
    let mut errors = Vec::new();
    if spec["manualSelector"] == true || spec["selector"].is_null() {
        return errors;
    }
    // A Job from before the prefixed labels goes on without them.
    let prefixed = old.is_none_or(|old| {
        let labels = &old["spec"]["template"]["metadata"]["labels"];
        !labels[NAME_LABELS[1]].is_null() && !labels[UID_LABELS[1]].is_null()
    });
    let labels = &spec["template"]["metadata"]["labels"];
    let mut expected = serde_json::Map::new();
    for at in if prefixed { 0..2 } else { 0..1 } {
        for (key, field) in [(UID_LABELS[at], "uid"), (NAME_LABELS[at], "name")] {
            let value = text(&new["metadata"], field);
            expected.insert(key.to_owned(), value.into());
            let path = format!("spec.template.metadata.labels[{key}]");
            let why = format!("must be '{value}'");
            if labels[key].is_null() {
                errors.push(FieldError::required(path, &why));
            } else if labels[key] != *value {
                errors.push(FieldError::invalid(path, labels, why));
            }
        }
    }
    let selector = &spec["selector"];
    if label_selector::validate("", selector).is_empty() && !label_selector::selects(selector, &expected.into()) {
        errors.push(FieldError::invalid("spec.selector", selector, "`selector` not auto-generated"));
    }
    errors
}

/// Why no pod of an indexed Job could bear the name of its last index.
fn hostname(job: &Value) -> Option<FieldError> {
    let completions = number(&job["spec"], "completions");
    if job["spec"]["completionMode"] != "Indexed" || completions <= 0 {
        return None;
    }
    let longest = format!("{}-{}", text(&job["metadata"], "name"), completions - 1);
    let why = format!("will not able to create pod with invalid DNS label: {longest}");
    let wrong = !names::label(&longest).is_empty();
    wrong.then(|| FieldError::invalid("metadata.name", &job["metadata"]["name"], why))
}

fn changes(spec: &Value, old: &Value) -> Vec<FieldError> {
    let before = &old["spec"];
    let immutable = |field: &str| {
        let changed = !same(&spec[field], &before[field]);
        changed.then(|| FieldError::immutable(format!("spec.{field}"), &spec[field]))
    };
    let mut errors = Vec::new();
    errors.extend(completions(spec, before));
    errors.extend(immutable("selector"));
    errors.extend(template_change(&spec["template"], old));
    let fixed = ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
    errors.extend(fixed.into_iter().filter_map(immutable));
    errors
}

/// An indexed Job can be made longer or shorter, with its parallelism.
fn completions(spec: &Value, before: &Value) -> Option<FieldError> {
    let (now, was) = (&spec["completions"], &before["completions"]);
    if now == was {
        return None;
    }
    if spec["completionMode"] != "Indexed" {
        return Some(FieldError::immutable("spec.completions", now));
    }
    let apart = !now.is_null() && *now != spec["parallelism"];
    let why = "can only be modified in tandem with spec.parallelism";
    apart.then(|| FieldError::invalid("spec.completions", now, why))
}

/// The template stays; while the Job is suspended and was never started, its pods may be told where to run.
fn template_change(template: &Value, old: &Value) -> Option<FieldError> {
    let mut before = old["spec"]["template"].clone();
    let suspended = old["spec"]["suspend"] == true && old["status"]["startTime"].is_null();
    if suspended {
        for field in ["annotations", "labels"] {
            before["metadata"][field] = template["metadata"][field].clone();
        }
        for field in ["nodeSelector", "tolerations", "schedulingGates"] {
            before["spec"][field] = template["spec"][field].clone();
        }
        let affinity = &template["spec"]["affinity"]["nodeAffinity"];
        before["spec"]["affinity"]["nodeAffinity"] = affinity.clone();
        let others = entries(&before["spec"]["affinity"]).any(|(_, value)| !is_empty(value));
        if !others && template["spec"]["affinity"].is_null() {
            before["spec"]["affinity"] = Value::Null;
        }
    }
    let changed = !same(template, &before);
    changed.then(|| FieldError::immutable("spec.template", template))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::job as make, *};

    fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
        job(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn usual_jobs_are_valid() {
        for spec in [
            json!({}),
            json!({"completions": 5, "parallelism": 2, "backoffLimit": 0, "ttlSecondsAfterFinished": 10}),
            json!({"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1, "maxFailedIndexes": 2}),
            json!({"managedBy": "example.com/controller", "suspend": true}),
        ] {
            assert_eq!(words(&make(spec.clone()), None), Vec::<String>::new(), "{spec}");
        }
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "x"}]}});
        assert_eq!(
            words(&make(json!({"template": pod})), None),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
        );
        assert_eq!(
            words(&make(json!({"completionMode": "Indexed", "parallelism": 2})), None),
            ["spec.completions: Required value: when completion mode is Indexed"]
        );
        assert_eq!(
            words(&make(json!({"maxFailedIndexes": 1})), None),
            [
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode"
            ]
        );
        let own = make(json!({"selector": {"matchLabels": {"a": "b"}}}));
        assert_eq!(
            words(&own, None),
            [
                "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"batch.kubernetes.io/controller-uid\":\"u\"}}: `selector` not auto-generated",
                "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\",\"batch.kubernetes.io/job-name\":\"j\",\"controller-uid\":\"u\",\"job-name\":\"j\"}: `selector` does not match template `labels`"
            ]
        );
        let manual = make(json!({"manualSelector": true}));
        assert_eq!(words(&manual, None)[0], "spec.selector: Required value");
    }

    #[test]
    fn the_template_stays_but_for_where_a_suspended_job_runs() {
        let old = make(json!({"suspend": true}));
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
        new["spec"]["template"]["metadata"]["annotations"] = json!({"a": "b"});
        new["spec"]["template"]["spec"]["affinity"] = json!({"nodeAffinity": {}});
        assert_eq!(words(&new, Some(&old)), Vec::<String>::new());
        new["spec"]["template"]["spec"]["containers"][0]["image"] = "y".into();
        let refused = words(&new, Some(&old));
        assert_eq!(refused.len(), 1);
        assert!(refused[0].starts_with("spec.template: Invalid value:") && refused[0].ends_with("field is immutable"));
        let running = make(json!({}));
        let mut moved = running.clone();
        moved["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
        assert_eq!(words(&moved, Some(&running)).len(), 1);
    }

    #[test]
    fn completions_change_with_the_parallelism_of_an_indexed_job() {
        let old = make(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3}));
        let mut new = old.clone();
        new["spec"]["completions"] = 4.into();
        assert_eq!(
            words(&new, Some(&old)),
            ["spec.completions: Invalid value: 4: can only be modified in tandem with spec.parallelism"]
        );
        new["spec"]["parallelism"] = 4.into();
        assert_eq!(words(&new, Some(&old)), Vec::<String>::new());
        let plain = make(json!({"completions": 3}));
        let mut longer = plain.clone();
        longer["spec"]["completions"] = 4.into();
        assert_eq!(words(&longer, Some(&plain)), ["spec.completions: Invalid value: 4: field is immutable"]);
    }
}
