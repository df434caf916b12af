//! Event, in the core group as it is stored and in `events.k8s.io` as newer clients write it: one set of objects, two
//! spellings.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value, json};

use super::{
    BuiltIn, BuiltInAs, Cell, Column, Deletion, FieldError, Kind, Storage, names,
    reading::{is_empty, number, same, text},
};
use crate::schema::{ZERO_MICRO_TIME, ZERO_TIME};

/// The declaration of `v1` Event, as which all Events are stored.
pub static CORE: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    storage: Storage::Stored,
    default: |_| {},
    validate,
    prepare: |_, _| {},
    columns: COLUMNS,
    cells,
    selectable,
    indexed: &[Cow::Borrowed("involvedObject.uid")],
    schema: "io.k8s.api.core.v1.Event",
    object_name: names::path_segment,
    bare_finalizers: true,
    deletion: Deletion { has_no_dependents: true, ..Deletion::PLAIN },
    creates_on_update: true,
    ..BuiltIn::PLAIN
};

/// The declaration of `events.k8s.io/v1` Event, another spelling of the same objects.
pub static EVENTS: BuiltIn = BuiltIn {
    group: "events.k8s.io",
    storage: Storage::As(&BuiltInAs { kind: &STRICT, to_stored, from_stored, deprecation: None }),
    selectable: |event| {
        let mut core = selectable(event);
        SELECTABLE.iter().filter_map(|(field, stored)| Some((*field, core.remove(stored)?))).collect()
    },
    stored_field: |field| SELECTABLE.iter().find(|spelling| spelling.0 == field).map_or(field, |spelling| spelling.1),
    schema: "io.k8s.api.events.v1.Event",
    // Never called with anything but the stored form, as all functions of a kind that is stored as another.
    ..CORE
};

/// The stored kind as writes through `events.k8s.io` use it: with the stricter rules of the newer spelling.
static STRICT: BuiltIn = BuiltIn {
    validate: validate_strictly,
    storage: Storage::Stored,
    object_name: names::subdomain,
    bare_finalizers: false,
    ..CORE
};

/// How long texts of an Event may be that has an `eventTime`.
const LIMITS: [(&str, usize); 3] = [("reportingInstance", 128), ("action", 128), ("reason", 128)];
const MAX_MESSAGE: usize = 1024;

/// The rules of writes through the core group.
fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    common_rules(new, "reportingComponent")
}

/// Those of writes through `events.k8s.io`: new Events leave the older fields out, and only a series may change.
fn validate_strictly(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = common_rules(new, "reportingController");
    if old.is_none_or(|old| !same(&new["series"], &old["series"])) && new["series"].is_object() {
        if number(&new["series"], "count") < 2 {
            errors.push(FieldError::invalid("series.count", &"".into(), "should be at least 2"));
        }
        if matches!(text(&new["series"], "lastObservedTime"), "" | ZERO_MICRO_TIME) {
            errors.push(FieldError::required("series.lastObservedTime", ""));
        }
    }
    if let Some(old) = old {
        let changed = IMMUTABLE.iter().filter(|(field, _)| !same(&new[*field], &old[*field]));
        errors.extend(changed.map(|(field, path)| FieldError::immutable(*path, &new[*field])));
        return errors;
    }
    if matches!(text(new, "eventTime"), "" | ZERO_MICRO_TIME) {
        errors.push(FieldError::required("eventTime", ""));
    }
    let r#type = text(new, "type");
    if !matches!(r#type, "Normal" | "Warning") {
        errors.push(FieldError::invalid("type", &"".into(), format!("has invalid value: {type}")));
    }
    let set = |field: &str| match &new[field] {
        Value::String(time) => !matches!(time.as_str(), "" | ZERO_TIME),
        Value::Number(count) => count.as_i64() != Some(0),
        Value::Object(source) => source.values().any(|text| !is_empty(text)),
        _ => false,
    };
    let older = ["firstTimestamp", "lastTimestamp", "count", "source"].into_iter().filter(|field| set(field));
    errors.extend(older.map(|field| FieldError::invalid(field, &"".into(), "needs to be unset")));
    errors
}

/// What no update through `events.k8s.io` changes, and how refusals call it.
const IMMUTABLE: [(&str, &str); 13] = [
    ("involvedObject", "involvedObject"),
    ("reason", "reason"),
    ("message", "message"),
    ("source", "source"),
    ("firstTimestamp", "firstTimestamp"),
    ("lastTimestamp", "lastTimestamp"),
    ("count", "count"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// The rules that hold for both spellings. An Event with an `eventTime` is of the newer kind, whose fields must be set.
/// `controller` is what the version calls the component that reports.
fn common_rules(new: &Value, controller: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let namespace = text(&new["metadata"], "namespace");
    let about = text(&new["involvedObject"], "namespace");
    let is_new = !matches!(text(new, "eventTime"), "" | ZERO_MICRO_TIME);
    let agrees = match about {
        "" => namespace == "default" || (is_new && namespace == "kube-system"),
        about => is_new || about == namespace,
    };
    if !agrees {
        let why = "does not match event.namespace";
        errors.push(FieldError::invalid("involvedObject.namespace", &about.into(), why));
    }
    if !is_new {
        return errors;
    }
    let component = text(new, "reportingComponent");
    if component.is_empty() {
        errors.push(FieldError::required(controller, ""));
    }
    let wrong = names::qualified_name(component);
    errors.extend(FieldError::invalid_each(controller, &component.into(), wrong));
    let too_long =
        |field: &str, max: usize| FieldError::invalid(field, &"".into(), format!("can have at most {max} characters"));
    for (field, max) in LIMITS {
        match text(new, field).len() {
            0 => errors.push(FieldError::required(field, "")),
            length if length > max => errors.push(too_long(field, max)),
            _ => {}
        }
    }
    if text(new, "message").len() > MAX_MESSAGE {
        errors.push(too_long("message", MAX_MESSAGE));
    }
    errors
}

const COLUMNS: &[Column] = &[
    Column::text("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
    Column::text("Type", "Type of this event (Normal, Warning), new types could be added in the future."),
    Column::text("Reason", "A short, machine readable reason for the transition into the object's current status."),
    Column::text("Object", "The object that this event is about."),
    Column::wide("Subobject", "The part of the object that this event is about."),
    Column::wide("Source", "The component reporting this event."),
    Column::text("Message", "A human-readable description of the status of this operation."),
    Column::wide("First Seen", "The time at which the event was first recorded."),
    Column::wide("Count", "The number of times this event has occurred."),
    Column::wide_name("Name", "Name must be unique within a namespace."),
];

fn cells(event: &Value) -> Vec<Cell> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let first = if event["firstTimestamp"].is_null() { &event["eventTime"] } else { &event["firstTimestamp"] };
    let mut last = if event["lastTimestamp"].is_null() { first } else { &event["lastTimestamp"] };
    let mut count = event["count"].as_i64().filter(|n| *n > 0).unwrap_or(1);
    if event["series"].is_object() {
        last = &event["series"]["lastObservedTime"];
        count = event["series"]["count"].as_i64().unwrap_or_default();
    }
    let about = &event["involvedObject"];
    let (kind, name) = (text(&about["kind"]).to_lowercase(), text(&about["name"]));
    vec![
        Cell::since(last),
        Cell::text(text(&event["type"])),
        Cell::text(text(&event["reason"])),
        Cell::text(if name.is_empty() { kind } else { format!("{kind}/{name}") }),
        Cell::text(text(&about["fieldPath"])),
        Cell::text(source(event)),
        Cell::text(text(&event["message"]).trim()),
        Cell::since(first),
        Cell::integer(count),
        Cell::name(event),
    ]
}

/// `kubelet, node-1`
fn source(event: &Value) -> String {
    let first =
        |a: &Value, b: &Value| a.as_str().filter(|s| !s.is_empty()).or(b.as_str()).unwrap_or_default().to_owned();
    let component = first(&event["source"]["component"], &event["reportingComponent"]);
    let instance = first(&event["source"]["host"], &event["reportingInstance"]);
    if instance.is_empty() { component } else { format!("{component}, {instance}") }
}

fn selectable(event: &Value) -> BTreeMap<&'static str, String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let about = &event["involvedObject"];
    BTreeMap::from([
        ("involvedObject.kind", text(&about["kind"])),
        ("involvedObject.namespace", text(&about["namespace"])),
        ("involvedObject.name", text(&about["name"])),
        ("involvedObject.uid", text(&about["uid"])),
        ("involvedObject.apiVersion", text(&about["apiVersion"])),
        ("involvedObject.resourceVersion", text(&about["resourceVersion"])),
        ("involvedObject.fieldPath", text(&about["fieldPath"])),
        ("reason", text(&event["reason"])),
        ("reportingComponent", text(&event["reportingComponent"])),
        ("source", source(event).split(", ").next().unwrap_or_default().to_owned()),
        ("type", text(&event["type"])),
    ])
}

/// The selectable fields: (`events.k8s.io`, core). The core group has `source` beside them.
const SELECTABLE: &[(&str, &str)] = &[
    ("reason", "reason"),
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.resourceVersion", "involvedObject.resourceVersion"),
    ("regarding.uid", "involvedObject.uid"),
    ("reportingController", "reportingComponent"),
    ("type", "type"),
];

/// (`events.k8s.io`, core)
const SPELLINGS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn to_stored(object: &mut Value) {
    let Some(event) = object.as_object_mut() else { return };
    respell(event, |key| SPELLINGS.iter().find(|s| s.0 == key).map(|s| s.1));
    event.insert("apiVersion".into(), json!("v1"));
    event.entry("involvedObject").or_insert_with(|| json!({}));
}

fn from_stored(object: &mut Value, _: &Kind) {
    let Some(event) = object.as_object_mut() else { return };
    respell(event, |key| SPELLINGS.iter().find(|s| s.1 == key).map(|s| s.0));
    event.insert("apiVersion".into(), json!("events.k8s.io/v1"));
    event.entry("eventTime").or_insert(Value::Null);
}

fn respell(event: &mut Map<String, Value>, spelling: impl Fn(&str) -> Option<&'static str>) {
    *event = std::mem::take(event)
        .into_iter()
        .map(|(key, value)| (spelling(&key).map_or(key, str::to_owned), value))
        .collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_in_the_namespace_of_what_it_is_about() {
        let paths = |event: Value| validate(&event, None).into_iter().map(|e| e.path).collect::<Vec<_>>();
        let event = |namespace: &str, about: &str| json!({"metadata": {"namespace": namespace}, "involvedObject": {"namespace": about}});
        assert_eq!(paths(event("a", "a")), Vec::<String>::new());
        assert_eq!(paths(event("default", "")), Vec::<String>::new(), "of a node");
        assert_eq!(paths(event("a", "b")), ["involvedObject.namespace"]);
        assert_eq!(paths(event("a", "")), ["involvedObject.namespace"]);
        let mut new = event("a", "a");
        new["eventTime"] = json!("2026-01-01T00:00:00.000000Z");
        new["reportingComponent"] = json!("example.com/c");
        new["reason"] = json!("x".repeat(129));
        assert_eq!(paths(new), ["reportingInstance", "action", "reason"]);
    }

    #[test]
    fn the_newer_spelling_is_stricter() {
        let told = |new: &Value, old: Option<&Value>| -> Vec<String> {
            validate_strictly(new, old).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
        };
        let event = json!({"metadata": {"namespace": "default"}, "involvedObject": {"name": "web"}, "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingComponent": "c", "reportingInstance": "i",
            "action": "Bind", "reason": "R", "source": {}, "firstTimestamp": null});
        assert_eq!(told(&event, None), Vec::<String>::new());
        let older = json!({"metadata": {"namespace": "default"}, "involvedObject": {}, "type": "Odd", "count": 1,
            "firstTimestamp": "2026-01-01T00:00:00Z", "source": {"component": "c"}, "series": {"count": 1}});
        assert_eq!(
            told(&older, None),
            [
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value",
                "eventTime: Required value",
                "type: Invalid value: \"\": has invalid value: Odd",
                "firstTimestamp: Invalid value: \"\": needs to be unset",
                "count: Invalid value: \"\": needs to be unset",
                "source: Invalid value: \"\": needs to be unset",
            ]
        );
        assert_eq!(validate(&older, None), [], "the core group asks for none of it");
        let mut series = event.clone();
        series["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"});
        assert_eq!(told(&series, Some(&event)), Vec::<String>::new());
        series["reason"] = json!("S");
        series["reportingComponent"] = json!("d");
        assert_eq!(
            told(&series, Some(&event)),
            [
                "reason: Invalid value: \"S\": field is immutable",
                "reportingController: Invalid value: \"d\": field is immutable"
            ]
        );
    }

    #[test]
    fn both_spellings_are_one_event() {
        let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"kind": "Pod", "name": "web"}, "note": "hello",
            "reportingController": "c", "reportingInstance": "i", "action": "Bind", "reason": "R", "type": "Normal"});
        let mut stored = new.clone();
        to_stored(&mut stored);
        assert_eq!(stored["involvedObject"]["name"], "web");
        assert_eq!(stored["message"], "hello");
        assert_eq!(selectable(&stored)["involvedObject.name"], "web");
        from_stored(&mut stored, &Kind::from(&EVENTS));
        assert_eq!(stored, new);
    }
}
