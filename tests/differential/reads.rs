//! Reads of one object and of lists, in all forms, with good and bad parameters.

use crate::{choice::Choice, request::Request, resources::Resource};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

const LABELS: [&str; 12] = [
    "run",
    "run=a",
    "run in (a,b)",
    "run notin (a)",
    "!run",
    "run!=a",
    "a=b=c",
    "run in a",
    "=x",
    "-a=b",
    "run=a,,b",
    "run>5",
];
const FIELDS: [&str; 12] = [
    "metadata.name=x",
    "metadata.name!=x",
    "metadata.namespace=default",
    "spec.nodeName=",
    "status.phase=Pending",
    "spec.nope=1",
    "metadata.labels=a",
    "a",
    "metadata.name=a,metadata.name=b",
    "type=Opaque",
    "=",
    "metadata.name==x",
];

/// A GET of the object at `path`.
pub fn get(choice: &mut Choice, path: &str) -> Request {
    match choice.weighted(&[40, 25, 15, 8, 6, 6]) {
        0 => Request::new("get", "GET", path),
        1 => Request::new("get as table", "GET", path)
            .accept(TABLE)
            .query("includeObject", *choice.one(&["Metadata", "None", "Object", "x"])),
        2 => Request::new("get as metadata", "GET", path).accept(METADATA),
        3 => Request::new("get", "GET", path).query("resourceVersion", *choice.one(&["0", "${rv}", "x", "-1"])),
        4 => Request::new("get", "GET", format!("{path}-missing")),
        _ => Request::new("get with odd accept", "GET", path).accept(choice.one::<&str>(&[
            "text/plain",
            "application/json;as=Table;v=v2;g=meta.k8s.io",
            "application/json;as=Other;v=v1;g=meta.k8s.io",
            "*/*",
            "application/xml, application/json",
            "application/yaml",
        ])),
    }
}

/// A list of `collection`.
pub fn list(choice: &mut Choice, resource: &Resource, collection: &str, number: u64) -> Request {
    let form = match choice.weighted(&[50, 30, 20]) {
        0 => Request::new("list", "GET", collection),
        1 => Request::new("list as table", "GET", collection).accept(TABLE),
        _ => Request::new("list as metadata", "GET", collection).accept(METADATA_LIST),
    };
    // Others of this kind are none of this scenario's business.
    let mine = |request: Request| match resource.namespaced {
        true => request,
        false => request.query("labelSelector", format!("run={number}")),
    };
    match choice.weighted(&[25, 20, 20, 15, 20]) {
        0 => mine(form),
        1 if resource.namespaced => form.query("labelSelector", *choice.one(&LABELS)),
        2 if resource.namespaced => form.query("fieldSelector", *choice.one(&FIELDS)),
        3 => mine(form).query("limit", *choice.one(&["1", "0", "-1", "x", "500"])),
        _ => {
            let (version, rule) = *choice.one(&[
                ("0", ""),
                ("0", "NotOlderThan"),
                ("0", "Exact"),
                ("", "Exact"),
                ("${rv}", "Exact"),
                ("${rv}", "NotOlderThan"),
                ("${rv}", "x"),
                ("x", ""),
                ("-1", ""),
                ("1", "Exact"),
                ("99999999999", "NotOlderThan"),
            ]);
            let request = mine(form).query("resourceVersion", version);
            let request = if rule.is_empty() { request } else { request.query("resourceVersionMatch", rule) };
            match choice.percent(15) {
                true => request.query("continue", *choice.one(&["x", "${continue}", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ"])),
                false => request,
            }
        }
    }
}
