//! CronJob: Jobs that are made by a schedule.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage, cron_schedule, job, label_selector,
    pod::{
        defaults::{fill, fill_text},
        sent_empties::refused_with,
    },
    prepare,
    reading::{items, text},
    workload::{self, CONTAINERS, IMAGES, SELECTOR},
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "batch",
    version: "v1",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    namespaced: true,
    subresources: &["status"],
    storage: Storage::Stored,
    default,
    validate,
    validate_sent: Some(|new, old, empties| refused_with(validate(new, old), empties)),
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({}));
        workload::drop_unknown(new, old, "/spec/jobTemplate/spec/template");
        prepare::count_generation(new, old);
    },
    columns: &[
        Column::name(),
        Column::text("Schedule", "When Jobs are made."),
        Column::text("Timezone", "Time zone of the schedule."),
        Column::boolean("Suspend", "Whether no Jobs are made for now."),
        Column::integer("Active", "Number of Jobs that run."),
        Column::text("Last Schedule", "When a Job was last made."),
        Column::age(),
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
    selectable: |_| BTreeMap::new(),
    schema: "io.k8s.api.batch.v1.CronJob",
    ..BuiltIn::PLAIN
};

/// Bytes of a name: a Job's has eleven more, and is the value of a label.
const MAX_NAME: usize = 52;

fn default(object: &mut Value) {
    let Some(spec) = workload::spec_of(object) else { return };
    fill_text(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", || json!(false));
    fill(spec, "successfulJobsHistoryLimit", || json!(3));
    fill(spec, "failedJobsHistoryLimit", || json!(1));
    fill(spec, "jobTemplate", || json!({}));
    fill(&mut spec["jobTemplate"], "metadata", || json!({}));
    if let Some(job) = spec.get_mut("jobTemplate").and_then(workload::spec_of) {
        job::default_template_spec(job);
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if workload::changes_spec(new, old) {
        errors.extend(validate_spec(&new["spec"], old.map(|old| &old["spec"])));
    }
    if old.is_none() && text(&new["metadata"], "name").len() > MAX_NAME {
        let why = "must be no more than 52 characters";
        errors.push(FieldError::invalid("metadata.name", &new["metadata"]["name"], why));
    }
    errors
}

fn validate_spec(spec: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = schedule(spec, old);
    errors.extend(FieldError::negative("spec.startingDeadlineSeconds", &spec["startingDeadlineSeconds"]));
    if old.is_none_or(|old| old["timeZone"] != spec["timeZone"]) {
        errors.extend(time_zone(&spec["timeZone"]));
    }
    let policies = ["Allow", "Forbid", "Replace"];
    errors.extend(FieldError::unsupported("spec.concurrencyPolicy", &spec["concurrencyPolicy"], &policies));
    let job = &spec["jobTemplate"]["spec"];
    errors.extend(job::validate_template_spec("spec.jobTemplate.spec", job));
    errors.extend(job::template_fields("spec.jobTemplate.spec", job));
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.extend(FieldError::negative(format!("spec.{field}"), &spec[field]));
    }
    errors
}

fn schedule(spec: &Value, old: Option<&Value>) -> Vec<FieldError> {
    const PATH: &str = "spec.schedule";
    let schedule = &spec["schedule"];
    let words = text(spec, "schedule");
    if words.is_empty() {
        return vec![FieldError::required(PATH, "")];
    }
    let mut errors = Vec::new();
    if let Err(why) = cron_schedule::parse(words) {
        errors.push(FieldError::invalid(PATH, schedule, why.to_string()));
    }
    // A schedule with a zone in it that was stored once may stay.
    let had_zone = old.is_some_and(|old| text(old, "schedule").contains("TZ"));
    if words.contains("TZ") && !had_zone {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(PATH, schedule, why));
    } else if words.contains("TZ") && !spec["timeZone"].is_null() {
        let why = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        errors.push(FieldError::invalid(PATH, schedule, why));
    }
    errors
}

fn time_zone(zone: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.timeZone";
    let Some(name) = zone.as_str() else { return Vec::new() };
    let unknown = || FieldError::invalid(PATH, zone, format!("unknown time zone {name}"));
    if name.is_empty() {
        return vec![FieldError::invalid(PATH, zone, "timeZone must be nil or non-empty string")];
    }
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    let part = |part: &str| {
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=14).contains(&part.len())
            && part.bytes().all(valid)
    };
    if !name.split('/').all(part) {
        return vec![unknown()];
    }
    if name.eq_ignore_ascii_case("Local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        return vec![FieldError::invalid(PATH, zone, why)];
    }
    if cron_schedule::is_time_zone(name) { Vec::new() } else { vec![unknown()] }
}

fn cells(object: &Value) -> Vec<Cell> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let job = &spec["jobTemplate"]["spec"];
    let [containers, images] = workload::containers(&job["template"]);
    let suspended = match spec["suspend"].as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    vec![
        Cell::name(object),
        Cell::text(text(spec, "schedule")),
        Cell::text(spec["timeZone"].as_str().unwrap_or("<none>")),
        Cell::text(suspended),
        Cell::integer(items(&status["active"]).len() as i64),
        match &status["lastScheduleTime"] {
            Value::Null => Cell::text("<none>"),
            at => Cell::since(at),
        },
        Cell::age(object),
        containers,
        images,
        Cell::text(label_selector::text(&job["selector"])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron_job(fields: Value) -> Value {
        let mut object = json!({"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {
            "template": {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "a", "image": "x"}]}}}}}});
        for (field, value) in fields.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        default(&mut object);
        object
    }

    fn words(new: &Value, old: Option<&Value>) -> Vec<String> {
        validate(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn usual_cron_jobs_are_valid() {
        for fields in [json!({}), json!({"schedule": "@hourly"}), json!({"timeZone": "Etc/UTC"})] {
            assert_eq!(words(&cron_job(fields.clone()), None), Vec::<String>::new(), "{fields}");
        }
        let job = &cron_job(json!({}))["spec"]["jobTemplate"]["spec"];
        assert!(job["backoffLimit"].is_null(), "the Job gets its defaults when it is made");
        assert_eq!(job["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        let refused = |fields: Value| words(&cron_job(fields), None);
        assert_eq!(refused(json!({"schedule": ""})), ["spec.schedule: Required value"]);
        assert_eq!(
            refused(json!({"schedule": "every day"})),
            ["spec.schedule: Invalid value: \"every day\": expected exactly 5 fields, found 2: [every day]"]
        );
        assert_eq!(
            refused(json!({"schedule": "TZ=UTC * * * * *"})),
            [
                "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            ]
        );
        for zone in ["Nowhere/Land", "../etc/passwd", "-a", "a b"] {
            assert_eq!(
                refused(json!({"timeZone": zone})),
                [format!("spec.timeZone: Invalid value: \"{zone}\": unknown time zone {zone}")]
            );
        }
        assert_eq!(
            refused(json!({"concurrencyPolicy": "Queue"})),
            [
                "spec.concurrencyPolicy: Unsupported value: \"Queue\": supported values: \"Allow\", \"Forbid\", \"Replace\""
            ]
        );
        let mut long = cron_job(json!({}));
        long["metadata"]["name"] = "a".repeat(53).into();
        assert!(words(&long, None)[0].ends_with("must be no more than 52 characters"));
        let mut selected = cron_job(json!({}));
        selected["spec"]["jobTemplate"]["spec"]["selector"] = json!({});
        assert_eq!(
            words(&selected, None),
            ["spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated"]
        );
    }

    #[test]
    fn a_zone_in_a_stored_schedule_may_stay() {
        let old = cron_job(json!({"schedule": "TZ=UTC 1 * * * *"}));
        let new = cron_job(json!({"schedule": "TZ=UTC 2 * * * *"}));
        assert_eq!(words(&new, Some(&old)), Vec::<String>::new());
        let both = cron_job(json!({"schedule": "TZ=UTC 2 * * * *", "timeZone": "Etc/UTC"}));
        assert!(words(&both, Some(&old))[0].ends_with("cannot use both timeZone field and TZ or CRON_TZ in schedule"));
    }
}
