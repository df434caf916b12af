//! The paths of one kind and their operations, with the query parameters that clients look for.

use serde_json::{Map, Value, json};

use crate::{
    api::subresource::Subresource,
    kinds::{Kind, Storage},
};

/// `api/v1`, `apis/apps/v1`
pub fn root(kind: &Kind) -> String {
    match &*kind.group {
        "" => format!("api/{}", kind.version),
        group => format!("apis/{group}/{}", kind.version),
    }
}

/// Every path of `kind`.
pub fn of(kind: &Kind) -> Vec<(String, Value)> {
    let namespace = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{}{namespace}/{}", root(kind), kind.plural);
    let item = format!("{collection}/{{name}}");
    if matches!(kind.storage, Storage::Virtual) {
        return vec![(collection, path(kind, &[("post", &kind.kind, kind.schema.name())], false))];
    }
    let list = format!("{}List", kind.schema.name());
    let mut paths = vec![
        (
            collection,
            path(
                kind,
                &[("get", &kind.kind, &list), ("post", &kind.kind, kind.schema.name()), ("delete", &kind.kind, STATUS)],
                false,
            ),
        ),
        (item.clone(), path(kind, &whole(kind, "delete", STATUS), true)),
    ];
    if kind.namespaced {
        let everywhere = path(kind, &[("get", &kind.kind, &list)], false);
        paths.push((format!("/{}/{}", root(kind), kind.plural), without_namespace(everywhere)));
    }
    for subresource in kind.subresources.iter().filter_map(|segment| Subresource::of(kind, segment)) {
        // Streams are not found by these documents.
        if subresource.by_agent {
            continue;
        }
        let (_, _, answers) = subresource.form_of(kind);
        let schema = subresource.form.map_or(kind.schema.name(), |form| form.schema);
        let methods = [("get", "get"), ("update", "put"), ("patch", "patch"), ("create", "post")];
        let served = methods.into_iter().filter(|(verb, _)| subresource.verbs.contains(verb));
        let operations: Vec<Operation> = served.map(|(_, method)| (method, answers, schema)).collect();
        paths.push((format!("{item}/{}", subresource.segment), path(kind, &operations, true)));
    }
    paths
}

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// Definitions that requests and answers have beside those of the kinds.
pub const BESIDE_KINDS: [&str; 7] = [
    STATUS,
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.core.v1.Binding",
    "io.k8s.api.policy.v1.Eviction",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
];

/// One operation: the HTTP method, the kind that is sent or answered, and the definition of the answer.
type Operation<'a> = (&'a str, &'a str, &'a str);

fn whole<'a>(kind: &'a Kind, last: &'a str, answer: &'a str) -> Vec<Operation<'a>> {
    let mut operations = vec![
        ("get", &*kind.kind, kind.schema.name()),
        ("put", &kind.kind, kind.schema.name()),
        ("patch", &kind.kind, kind.schema.name()),
    ];
    if !last.is_empty() {
        operations.push((last, &kind.kind, answer));
    }
    operations
}

fn path(kind: &Kind, operations: &[Operation], named: bool) -> Value {
    let mut path = Map::new();
    let mut parameters = Vec::new();
    if named {
        parameters.push(in_path("name", &format!("name of the {}", kind.kind)));
    }
    if kind.namespaced {
        parameters.push(in_path("namespace", "object name and auth scope, such as for teams and projects"));
    }
    parameters.push(in_query("pretty", "string", "Not needed: the answer is compact JSON."));
    path.insert("parameters".into(), Value::Array(parameters));
    for (method, answers, definition) in operations {
        path.insert((*method).to_owned(), operation(kind, method, answers, definition, named));
    }
    Value::Object(path)
}

fn operation(kind: &Kind, method: &str, answers: &str, definition: &str, named: bool) -> Value {
    let action = match (method, named) {
        ("get", true) => "get",
        ("get", false) => "list",
        ("delete", false) => "deletecollection",
        (method, _) => method,
    };
    let (group, version) = match answers {
        "Scale" => ("autoscaling", "v1"),
        "Binding" => ("", "v1"),
        "Eviction" => ("policy", "v1"),
        _ => (&*kind.group, &*kind.version),
    };
    let refers_to = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let mut operation = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": answers},
        "responses": {"200": {"description": "OK",
            "content": {"application/json": {"schema": refers_to(definition)}}}},
    });
    if matches!(method, "post" | "put" | "patch") {
        operation["parameters"] = json!([
            in_query("dryRun", "string", "`All`: everything but the write itself is done."),
            in_query("fieldManager", "string", "Name of who or what makes the change."),
            in_query(
                "fieldValidation",
                "string",
                "`Ignore`, `Warn` or `Strict`: what becomes of unknown and duplicate fields."
            ),
        ]);
        if method == "patch" {
            let force = in_query("force", "boolean", "Whether server-side apply takes fields from other managers.");
            if let Some(list) = operation["parameters"].as_array_mut() {
                list.push(force);
            }
        }
        operation["requestBody"] = match method {
            "patch" => json!({"required": true, "content": patches()}),
            _ => json!({"required": true, "content": {"application/json": {"schema": refers_to(definition)}}}),
        };
    } else if action == "list" || action == "deletecollection" {
        operation["parameters"] = json!([
            in_query("labelSelector", "string", "Selects objects by their labels."),
            in_query("fieldSelector", "string", "Selects objects by some of their fields."),
            in_query("limit", "integer", "Most objects in one answer."),
            in_query("continue", "string", "Where the answer before ended."),
            in_query("resourceVersion", "string", "The state to answer from."),
            in_query("resourceVersionMatch", "string", "`NotOlderThan` or `Exact`."),
            in_query("timeoutSeconds", "integer", "How long the request may take."),
            in_query("watch", "boolean", "Go on with the changes instead of the list."),
            in_query("allowWatchBookmarks", "boolean", "Whether the watch may be told its progress."),
            in_query("sendInitialEvents", "boolean", "Whether the watch starts with the objects that are there."),
        ]);
    }
    operation
}

fn patches() -> Value {
    let schema = json!({"schema": {"type": "object"}});
    json!({
        "application/json-patch+json": {"schema": {"type": "array", "items": {"type": "object"}}},
        "application/merge-patch+json": schema,
        "application/strategic-merge-patch+json": schema,
        "application/apply-patch+yaml": schema,
    })
}

fn in_path(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string", "uniqueItems": true}})
}

fn in_query(name: &str, kind: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

fn without_namespace(mut path: Value) -> Value {
    if let Some(parameters) = path.get_mut("parameters").and_then(Value::as_array_mut) {
        parameters.retain(|p| p["name"] != "namespace");
    }
    path
}
