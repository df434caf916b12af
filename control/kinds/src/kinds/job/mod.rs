//! Job: pods that run until so many of them have succeeded.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, Deletion, Sent, Storage, age,
    pod::{
        defaults::{fill, fill_text},
        sent_empties::refused_with,
    },
    prepare,
    reading::{is_empty, items, number, text},
    workload::{self, CONTAINERS, IMAGES, SELECTOR},
};

mod failure_policy;
mod indexes;
mod status;
mod success_policy;
mod validation;

pub use validation::{spec_at as validate_template_spec, template_fields};

const PODS_STAY: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
                         remove them or set propagationPolicy=Orphan to suppress this warning";

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "batch",
    version: "v1",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    short_names: &[],
    categories: &["all"],
    namespaced: true,
    subresources: &["status"],
    storage: Storage::Stored,
    default,
    validate: validation::job,
    validate_sent: Some(|new, old, empties| refused_with(validation::job(new, old), empties)),
    prepare_sent: Some(prepare_job),
    columns: &[
        Column::name(),
        Column::text("Status", "Status of the job."),
        Column::text("Completions", "How many pods have succeeded, of how many."),
        Column::text("Duration", "Time required to complete the job."),
        Column::age(),
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
    selectable: |o| BTreeMap::from([("status.successful", number(&o["status"], "succeeded").to_string())]),
    deletion: Deletion { orphans_by_default: true, warning: Some(PODS_STAY), ..Deletion::PLAIN },
    schema: "io.k8s.api.batch.v1.Job",
    ..BuiltIn::PLAIN
};

/// Labels of a Job's pods; the first of each pair is the name from before they had a prefix.
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

fn default(object: &mut Value) {
    let Some(spec) = workload::spec_of(object) else { return };
    default_template_spec(spec);
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = json!(1);
    }
    fill(spec, "parallelism", || json!(1));
    let by_index = !spec["backoffLimitPerIndex"].is_null();
    fill(spec, "backoffLimit", || if by_index { json!(i32::MAX) } else { json!(6) });
    fill(spec, "completionMode", || json!("NonIndexed"));
    fill(spec, "suspend", || json!(false));
    let replaced = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    fill(spec, "podReplacementPolicy", || json!(replaced));
    fill(spec, "manualSelector", || json!(false));
    label_as_template(object);
}

/// A Job without labels has those of its pods.
fn label_as_template(job: &mut Value) {
    let labels = job["spec"]["template"]["metadata"]["labels"].clone();
    if !is_empty(&labels)
        && let Some(metadata) = job.get_mut("metadata").filter(|metadata| is_empty(&metadata["labels"]))
    {
        metadata["labels"] = labels;
    }
}

/// Whether the labels of a Job are those of its template, and there are some. Go gives a Job that is sent without
/// labels the very map of its template, so that what is added to that map is added to both. Who changed one of the two
/// since, a webhook, has sent the Job anew, and they are two.
fn has_labels_of_template(job: &Value) -> bool {
    let labels = &job["metadata"]["labels"];
    !is_empty(labels) && *labels == job["spec"]["template"]["metadata"]["labels"]
}

/// Fills in what is missing in the spec of a Job that is not made yet, in a CronJob: the pod template, and the status
/// that a condition of the failure policy has.
pub fn default_template_spec(spec: &mut Value) {
    fill(spec, "template", || json!({}));
    if let Some(template) = spec.get_mut("template") {
        workload::default_template(template);
    }
    let rules = spec.pointer_mut("/podFailurePolicy/rules").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        for pattern in rule.get_mut("onPodConditions").and_then(Value::as_array_mut).into_iter().flatten() {
            fill_text(pattern, "status", "True");
        }
    }
}

fn prepare_job(new: &mut Value, old: Option<&Value>, sent: &Sent) {
    prepare::keep_status(new, old, json!({}));
    if old.is_none() && new["spec"]["manualSelector"] != true {
        let shares_labels = sent.lacks_labels && has_labels_of_template(new);
        generate_selector(new);
        if shares_labels {
            let labels = new["spec"]["template"]["metadata"]["labels"].clone();
            new["metadata"]["labels"] = labels;
        }
    }
    // What is stored without labels has those of its template when it is read: they are written at once.
    label_as_template(new);
    workload::drop_unknown(new, old, "/spec/template");
    prepare::count_generation(new, old);
}

/// Labels the pods with the Job's name and uid, and selects them by the uid.
fn generate_selector(job: &mut Value) {
    let value = |field: &str| json!(text(&job["metadata"], field));
    let (name, uid) = (value("name"), value("uid"));
    let Some(spec) = job.get_mut("spec").filter(|spec| spec["template"].is_object()) else { return };
    let template = &mut spec["template"];
    fill(template, "metadata", || json!({}));
    fill(&mut template["metadata"], "labels", || json!({}));
    let labels = &mut template["metadata"]["labels"];
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            fill(labels, key, || value.clone());
        }
    }
    fill(spec, "selector", || json!({}));
    fill(&mut spec["selector"], "matchLabels", || json!({}));
    fill(&mut spec["selector"]["matchLabels"], UID_LABELS[1], || uid);
}

/// Whether the Job has a condition of this type that holds.
fn holds(job: &Value, condition: &str) -> bool {
    items(&job["status"]["conditions"]).any(|c| c["type"] == condition && c["status"] == "True")
}

/// Whether the Job is complete or has failed.
fn is_finished(job: &Value) -> bool {
    holds(job, "Complete") || holds(job, "Failed")
}

fn cells(job: &Value) -> Vec<Cell> {
    let [containers, images, selector] = workload::cells(&job["spec"]);
    vec![
        Cell::name(job),
        Cell::text(status_word(job)),
        Cell::text(completions(job)),
        duration(&job["status"]),
        Cell::age(job),
        containers,
        images,
        selector,
    ]
}

fn status_word(job: &Value) -> &'static str {
    let deleted = !job["metadata"]["deletionTimestamp"].is_null();
    [
        (holds(job, "Complete"), "Complete"),
        (holds(job, "Failed"), "Failed"),
        (deleted, "Terminating"),
        (holds(job, "Suspended"), "Suspended"),
        (holds(job, "FailureTarget"), "FailureTarget"),
        (holds(job, "SuccessCriteriaMet"), "SuccessCriteriaMet"),
    ]
    .into_iter()
    .find_map(|(is_so, word)| is_so.then_some(word))
    .unwrap_or("Running")
}

/// `1/3`, or of a Job without a number of completions `0/1 of 5`.
fn completions(job: &Value) -> String {
    let (spec, succeeded) = (&job["spec"], number(&job["status"], "succeeded"));
    match (spec["completions"].as_i64(), number(spec, "parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(status: &Value) -> Cell {
    let instant = |field: &str| status[field].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    match (instant("startTime"), instant("completionTime")) {
        (None, _) => Cell::text(""),
        (Some(_), None) => Cell::since(&status["startTime"]),
        (Some(start), Some(end)) => Cell::text(age::human(end.as_second() - start.as_second())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::SentEmpties;

    /// A Job as it is when it is validated first.
    pub(super) fn job(spec: Value) -> Value {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": spec});
        if job["spec"]["template"].is_null() {
            job["spec"]["template"] =
                json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]}});
        }
        default(&mut job);
        prepare_job(&mut job, None, &Sent::default());
        job
    }

    #[test]
    fn a_job_that_is_sent_without_labels_shares_those_of_its_template() {
        let prepared = |own: Value, change: fn(&mut Value)| {
            let template = json!({"metadata": {"labels": {"app": "a"}}});
            let mut job = json!({"metadata": {"name": "j", "uid": "u", "labels": own}, "spec": {"template": template}});
            let sent = Sent::of(&job, SentEmpties::NONE);
            default(&mut job);
            change(&mut job);
            prepare_job(&mut job, None, &sent);
            assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
            job["metadata"]["labels"].get("job-name").is_some()
        };
        assert!(prepared(json!({}), |_| {}));
        assert!(!prepared(json!({"app": "a"}), |_| {}), "two maps of the same content");
        assert!(!prepared(json!({}), |job| job["metadata"]["labels"]["by"] = json!("webhook")));
    }

    #[test]
    fn a_job_labels_and_selects_its_pods() {
        let job = job(json!({}));
        let labels = json!({"job-name": "j", "batch.kubernetes.io/job-name": "j", "controller-uid": "u",
            "batch.kubernetes.io/controller-uid": "u"});
        assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels);
        assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
        assert_eq!(job["metadata"]["labels"], labels, "it has none of its own");
        assert_eq!(job["metadata"]["generation"], 1);
        let spec = &job["spec"];
        assert_eq!(
            (&spec["completions"], &spec["parallelism"], &spec["backoffLimit"]),
            (&json!(1), &json!(1), &json!(6))
        );
        assert_eq!(spec["podReplacementPolicy"], "TerminatingOrFailed");
    }

    #[test]
    fn cells_tell_how_far_it_is() {
        let mut job = job(json!({"completions": 3}));
        job["status"] = json!({"succeeded": 1, "startTime": "2026-01-01T00:00:00Z"});
        let told = |job: &Value| {
            let now = "2026-01-01T00:01:00Z".parse().unwrap();
            cells(job)[1..4].iter().map(|cell| cell.render(now)).collect::<Vec<_>>()
        };
        assert_eq!(told(&job), ["Running", "1/3", "60s"]);
        job["status"]["completionTime"] = "2026-01-01T00:00:07Z".into();
        job["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
        assert_eq!(told(&job), ["Complete", "1/3", "7s"]);
    }
}
