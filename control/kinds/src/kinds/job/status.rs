//! Which states a Job may report, and what may follow what.
//!
//! Only what a write changes is held against it, so that a Job from an earlier version can go on.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{holds, indexes, is_finished};
use crate::kinds::{
    FieldError,
    reading::{as_text, items, number},
};

/// Why the status of `old` may not become that of `new`.
pub fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let changes = Changes { new, old };
    let mut errors = counts(&new["status"]);
    errors.extend(conditions(&changes));
    errors.extend(times(&changes));
    errors.extend(finished(&changes));
    errors.extend(named_indexes(&changes));
    errors.extend(transitions(&changes));
    errors.extend(more_ready(&changes));
    errors
}

struct Changes<'a> {
    new: &'a Value,
    old: &'a Value,
}

impl Changes<'_> {
    /// Whether a field of the status changes.
    fn field(&self, field: &str) -> bool {
        self.new["status"][field] != self.old["status"][field]
    }

    /// Whether a condition begins or ceases to hold.
    fn condition(&self, condition: &str) -> bool {
        holds(self.new, condition) != holds(self.old, condition)
    }

    fn finished(&self) -> bool {
        is_finished(self.new) != is_finished(self.old)
    }
}

fn counts(status: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        errors.extend(FieldError::negative(format!("status.{field}"), &status[field]));
    }
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for (i, uid) in items(&status["uncountedTerminatedPods"][list]).enumerate() {
            let path = format!("status.uncountedTerminatedPods.{list}[{i}]");
            if as_text(uid).is_empty() {
                errors.push(FieldError::invalid(path, uid, "must not be empty"));
            } else if !seen.insert(as_text(uid)) {
                errors.push(FieldError::duplicate(path, uid));
            }
        }
    }
    errors
}

fn conditions(changes: &Changes<'_>) -> Vec<FieldError> {
    let Changes { new, .. } = changes;
    let (complete, failed) = (holds(new, "Complete"), holds(new, "Failed"));
    let (met, target) = (holds(new, "SuccessCriteriaMet"), holds(new, "FailureTarget"));
    let (complete_changes, failed_changes) = (changes.condition("Complete"), changes.condition("Failed"));
    let with_policy = !new["spec"]["successPolicy"].is_null();
    let wrong = [
        (
            (complete_changes || failed_changes) && complete && failed,
            "cannot set Complete=True and Failed=true conditions",
        ),
        (
            (complete_changes || changes.condition("FailureTarget")) && complete && target,
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            (failed_changes || changes.field("failedIndexes")) && failed && !target,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            (complete_changes || changes.condition("SuccessCriteriaMet")) && complete && !met,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
        (
            with_policy && !met && complete,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
    ];
    wrong.into_iter().filter(|(is_so, _)| *is_so).map(|(_, why)| of_conditions(why)).collect()
}

fn of_conditions(why: &str) -> FieldError {
    FieldError::invalid_unnamed("status.conditions", why)
}

fn times(changes: &Changes<'_>) -> Vec<FieldError> {
    const PATH: &str = "status.completionTime";
    let Changes { new, .. } = changes;
    let status = &new["status"];
    let (start, end) = (&status["startTime"], &status["completionTime"]);
    let completion_changes = changes.condition("Complete") || changes.field("completionTime");
    let complete = holds(new, "Complete");
    let mut errors = Vec::new();
    if completion_changes && !end.is_null() && !complete {
        let why = "cannot set completionTime when there is no Complete=True condition";
        errors.push(FieldError::invalid(PATH, end, why));
    }
    if completion_changes && end.is_null() && complete {
        errors.push(FieldError::required(PATH, "completionTime is required for Complete jobs"));
    }
    // Times of one form in UTC sort as text.
    let before = !start.is_null() && !end.is_null() && as_text(end) < as_text(start);
    if (changes.field("startTime") || changes.field("completionTime")) && before {
        errors.push(FieldError::invalid(PATH, end, "must be equal to or after `startTime`"));
    }
    errors
}

fn finished(changes: &Changes<'_>) -> Vec<FieldError> {
    let Changes { new, .. } = changes;
    let (spec, status) = (&new["spec"], &new["status"]);
    let is_finished = is_finished(new);
    let mut errors = Vec::new();
    if (changes.finished() || changes.field("active")) && number(status, "active") > 0 && is_finished {
        errors.push(FieldError::invalid("status.active", &status["active"], "active>0 is invalid for finished job"));
    }
    let nothing_to_start = spec["suspend"] == true && spec["completions"].as_i64() == Some(0);
    let start_changes = (changes.finished() || changes.field("startTime")) && !nothing_to_start;
    if start_changes && status["startTime"].is_null() && is_finished {
        errors.push(FieldError::required("status.startTime", "startTime is required for finished job"));
    }
    let uncounted = &status["uncountedTerminatedPods"];
    let some_uncounted = items(&uncounted["failed"]).len() + items(&uncounted["succeeded"]).len() > 0;
    if (changes.finished() || changes.field("uncountedTerminatedPods")) && some_uncounted && is_finished {
        let why = "must be empty for finished job";
        errors.push(FieldError::invalid("status.uncountedTerminatedPods", uncounted, why));
    }
    if (changes.finished() || changes.field("terminating")) && number(status, "terminating") > 0 && is_finished {
        let why = "terminating>0 is invalid for finished job";
        errors.push(FieldError::invalid("status.terminating", &status["terminating"], why));
    }
    errors
}

fn more_ready(changes: &Changes<'_>) -> Option<FieldError> {
    let status = &changes.new["status"];
    let more = status["ready"].as_i64().is_some_and(|ready| ready > number(status, "active"));
    ((changes.field("ready") || changes.field("active")) && more)
        .then(|| FieldError::invalid("status.ready", &status["ready"], "cannot set more ready pods than active"))
}

fn named_indexes(changes: &Changes<'_>) -> Vec<FieldError> {
    const COMPLETED: &str = "status.completedIndexes";
    const FAILED: &str = "status.failedIndexes";
    let (spec, status) = (&changes.new["spec"], &changes.new["status"]);
    let (completed, failed) = (&status["completedIndexes"], &status["failedIndexes"]);
    let per_index = !spec["backoffLimitPerIndex"].is_null();
    let (completed_changes, failed_changes) = (changes.field("completedIndexes"), changes.field("failedIndexes"));
    let mut errors = Vec::new();
    if let Some(completions) = spec["completions"].as_i64() {
        if completed_changes && let Err(why) = indexes::count(as_text(completed), completions) {
            errors.push(FieldError::invalid(COMPLETED, completed, format!("error parsing completedIndexes: {why}")));
        }
        if failed_changes
            && per_index
            && !failed.is_null()
            && let Err(why) = indexes::count(as_text(failed), completions)
        {
            errors.push(FieldError::invalid(FAILED, failed, format!("error parsing failedIndexes: {why}")));
        }
    }
    if completed_changes && !as_text(completed).is_empty() && spec["completionMode"] != "Indexed" {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(FieldError::invalid(COMPLETED, completed, why));
    }
    if failed_changes && !per_index && !failed.is_null() {
        let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(FieldError::invalid(FAILED, failed, why));
    }
    let both = spec["completions"].as_i64().filter(|_| completed_changes || failed_changes);
    let overlap = both.and_then(|completions| indexes::overlap(as_text(completed), as_text(failed), completions));
    if let Some(index) = overlap {
        let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.push(FieldError::invalid(FAILED, failed, why));
    }
    errors
}

fn transitions(changes: &Changes<'_>) -> Vec<FieldError> {
    let Changes { new, old } = changes;
    let (spec, now, was) = (&new["spec"], &new["status"], &old["status"]);
    let mut errors = Vec::new();
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if holds(old, condition) && !holds(new, condition) {
            errors.push(of_conditions(&format!("cannot disable the terminal {condition}=True condition")));
        }
    }
    if number(now, "failed") < number(was, "failed") {
        errors.push(FieldError::invalid("status.failed", &now["failed"], "cannot decrease the failed counter"));
    }
    // An indexed Job can be made shorter, and then has fewer indexes that succeeded.
    let can_shrink = spec["completionMode"] == "Indexed" && spec["completions"] == spec["parallelism"];
    if !can_shrink && number(now, "succeeded") < number(was, "succeeded") {
        let why = "cannot decrease the succeeded counter";
        errors.push(FieldError::invalid("status.succeeded", &now["succeeded"], why));
    }
    let (end, ended) = (&now["completionTime"], &was["completionTime"]);
    if !end.is_null() && !ended.is_null() && end != ended {
        errors.push(FieldError::immutable("status.completionTime", end));
    }
    let suspended_as = |job: &Value, status: &str| {
        items(&job["status"]["conditions"]).any(|c| c["type"] == "Suspended" && c["status"] == status)
    };
    let resumes = suspended_as(old, "True") && suspended_as(new, "False");
    if changes.field("startTime") && !resumes && !was["startTime"].is_null() && spec["suspend"] != true {
        let why = "startTime cannot be removed for unsuspended job";
        errors.push(FieldError::required("status.startTime", why));
    }
    let (met, was_met) = (holds(new, "SuccessCriteriaMet"), holds(old, "SuccessCriteriaMet"));
    if was_met && !met {
        errors.push(of_conditions("cannot disable the SuccessCriteriaMet=True condition"));
    }
    if holds(old, "Complete") && !was_met && met {
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        errors.push(of_conditions(why));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(new: Value, old: Value) -> Vec<String> {
        let spec = json!({"completions": 3, "completionMode": "NonIndexed"});
        let job = |status: Value| json!({"spec": spec, "status": status});
        validate(&job(new), &job(old)).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    fn conditions(types: &[&str]) -> Value {
        types.iter().map(|t| json!({"type": t, "status": "True"})).collect()
    }

    #[test]
    fn pods_that_are_not_counted_as_ready_are_not_more_than_the_active() {
        assert_eq!(
            words(json!({"active": -1}), json!({})),
            ["status.active: Invalid value: -1: must be greater than or equal to 0"]
        );
        let more = words(json!({"active": 1, "ready": 2}), json!({}));
        assert_eq!(more, ["status.ready: Invalid value: 2: cannot set more ready pods than active"]);
    }

    #[test]
    fn a_job_completes_once_its_criteria_are_met() {
        let running = json!({"active": 1, "startTime": "2026-01-01T00:00:00Z"});
        let done = json!({"succeeded": 3, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:00Z",
            "conditions": conditions(&["SuccessCriteriaMet", "Complete"])});
        assert_eq!(words(done.clone(), running.clone()), Vec::<String>::new());
        let mut without = done.clone();
        without["conditions"] = conditions(&["Complete"]);
        assert_eq!(
            words(without, running.clone()),
            [
                "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition"
            ]
        );
        let mut untimed = done.clone();
        untimed["completionTime"] = Value::Null;
        assert_eq!(
            words(untimed, running.clone()),
            ["status.completionTime: Required value: completionTime is required for Complete jobs"]
        );
        assert_eq!(words(running, done).len(), 3, "what is over stays over");
    }

    #[test]
    fn a_job_fails_after_its_target_was_set_and_without_active_pods() {
        let running = json!({"active": 1, "failed": 2, "startTime": "2026-01-01T00:00:00Z"});
        let failed = json!({"active": 1, "failed": 1, "startTime": "2026-01-01T00:00:00Z",
            "conditions": conditions(&["Failed"])});
        assert_eq!(
            words(failed, running),
            [
                "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
                "status.active: Invalid value: 1: active>0 is invalid for finished job",
                "status.failed: Invalid value: 1: cannot decrease the failed counter",
            ]
        );
    }
}
