//! The requests about one object: bad creates, the good one, then reads, updates, patches and deletions as they come.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    choice::Choice,
    kit::Result,
    mutation, patches, reads,
    request::{Body, Request},
    resources::Resource,
};

/// Requests in order; `setup` and `cleanup` are sent to both, and not compared.
pub struct Scenario {
    pub setup: Vec<Request>,
    pub requests: Vec<Request>,
    pub cleanup: Vec<Request>,
}

/// How many requests follow the good create.
const FOLLOWING: usize = 7;

/// Scenario `number` of a run with `seed`, about an object of `resource`.
pub fn scenario(seed: u64, number: u64, resource: &Resource) -> Result<Scenario> {
    let mut choice = Choice::new(seed, number);
    let namespace = format!("d-{number}");
    let object = sample(resource, number, &namespace)?;
    let collection = resource.collection(&namespace);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let path = format!("{collection}/{name}");
    let mut scenario = Scenario { setup: Vec::new(), requests: Vec::new(), cleanup: Vec::new() };
    if resource.namespaced {
        scenario.setup = vec![
            Request::new("setup", "POST", "/api/v1/namespaces").json(json!({"metadata": {"name": namespace}})),
            Request::new("setup", "POST", format!("/api/v1/namespaces/{namespace}/serviceaccounts"))
                .json(json!({"metadata": {"name": "default"}})),
        ];
    }
    for _ in 0..*choice.one(&[1, 2, 2, 3]) {
        scenario.requests.push(bad_create(&mut choice, resource, &object, &collection));
    }
    if choice.percent(12) && !resource.has_wide_effect() {
        let created = patches::apply(&mut choice, resource, &object, &path);
        scenario.requests.push(created);
    }
    scenario.requests.extend(update_of_nothing(number, &object, &path));
    scenario.requests.push(Request::new("create", "POST", &collection).json(object.clone()));
    for _ in 0..FOLLOWING {
        let request = following(&mut choice, resource, &object, &collection, &path, number);
        scenario.requests.push(request);
    }
    scenario.requests.push(delete(&mut choice, &path, &collection, resource.namespaced));
    if !resource.namespaced {
        let unbound = json!({"metadata": {"finalizers": null}});
        scenario.cleanup = vec![
            Request::new("cleanup", "PATCH", &path).content_type("application/merge-patch+json").json(unbound),
            Request::new("cleanup", "DELETE", &path),
        ];
    }
    Ok(scenario)
}

/// The sample with what tells scenarios apart filled in.
fn sample(resource: &Resource, number: u64, namespace: &str) -> Result<Value> {
    let mut text = resource.sample.to_string();
    if text.contains("${csr}") {
        let key = rcgen::KeyPair::generate()?;
        let request = rcgen::CertificateParams::new(vec!["example.com".to_owned()])?.serialize_request(&key)?;
        text = text.replace("${csr}", &STANDARD.encode(request.pem()?));
    }
    let ip = format!("192.168.{}.{}", number / 250 % 250, number % 250);
    text = text.replace("${n}", &number.to_string()).replace("${ns}", namespace).replace("${ip}", &ip);
    Ok(serde_json::from_str(&text)?)
}

fn bad_create(choice: &mut Choice, resource: &Resource, object: &Value, collection: &str) -> Request {
    let request = Request::new("create", "POST", collection);
    let request = options(choice, request, resource, 75);
    let mut object = object.clone();
    match choice.weighted(&[80, 6, 5, 5, 4]) {
        0 => {
            for _ in 0..*choice.one(&[1, 1, 1, 2, 3]) {
                mutation::edit(choice, &resource.schema, &object, None).apply(&mut object);
            }
        }
        1 => {
            let names = ["", "A", "a_b", "-a", "a.b", "a/b", "..", "a%b"];
            object["metadata"]["name"] = match choice.percent(20) {
                true => "a".repeat(*choice.one(&[63, 64, 253, 254])).into(),
                false => (*choice.one(&names)).into(),
            };
        }
        2 => {
            let (key, value) = choice
                .one(&[
                    ("apiVersion", json!("v9")),
                    ("kind", json!("Other")),
                    ("kind", json!(null)),
                    ("apiVersion", json!(null)),
                    ("metadata", json!(null)),
                    ("spec", json!(null)),
                    ("spec", json!([])),
                ])
                .clone();
            object[key] = value;
        }
        3 => {
            let text = ["", "{", "[]", "null", "5", "a: b", "{\"kind\":\"X\",\"kind\":\"Y\"}", "\u{0}"];
            let types = ["application/json", "application/yaml", "text/plain", "application/vnd.kubernetes.protobuf"];
            let body = Body::Text((*choice.one(&text)).to_owned());
            return request.body(body).content_type(choice.one::<&str>(&types));
        }
        _ => {
            let metadata = object["metadata"].as_object_mut().expect("every sample has metadata");
            match choice.below(4) {
                0 => {
                    metadata.shift_remove("name");
                    metadata.insert("generateName".into(), "gen-".into());
                }
                1 => drop(metadata.insert("resourceVersion".into(), "5".into())),
                2 => drop(metadata.insert("namespace".into(), "elsewhere".into())),
                _ => drop(metadata.insert("finalizers".into(), json!(["example.com/f", "bad"]))),
            }
        }
    }
    request.json(object)
}

/// A `PUT` before there is anything: it creates objects of some kinds. By the scenario's number, and of four in five.
fn update_of_nothing(number: u64, object: &Value, path: &str) -> Option<Request> {
    let mut object = object.clone();
    let request = Request::new("update of nothing", "PUT", path);
    let dry = |request: Request| request.query("dryRun", "All");
    let request = match number % 5 {
        0 => request,
        1 => dry(request),
        2 => {
            object["metadata"]["resourceVersion"] = json!("5");
            dry(request)
        }
        3 => {
            object["metadata"]["uid"] = json!("5f0e1d2c-0000-4000-8000-000000000000");
            request
        }
        _ => return None,
    };
    Some(request.json(object))
}

/// Options of a write: dryRun in `dry` of 100 cases, validation of fields, the manager's name.
fn options(choice: &mut Choice, mut request: Request, resource: &Resource, dry: usize) -> Request {
    if resource.has_wide_effect() || choice.percent(dry) {
        request = request.query("dryRun", "All");
    } else if choice.percent(4) {
        request = request.query("dryRun", *choice.one(&["", "x", "true"]));
    }
    if choice.percent(45) {
        request = request.query("fieldValidation", *choice.one(&["Strict", "Strict", "Warn", "Ignore", "x"]));
    }
    let has_manager = request.query.iter().any(|(key, _)| key == "fieldManager");
    if choice.percent(20) && !has_manager {
        let long = "m".repeat(129);
        request = request.query("fieldManager", *choice.one(&["tester", "two", &long, "é\u{7}"]));
    }
    request
}

fn following(
    choice: &mut Choice,
    resource: &Resource,
    object: &Value,
    collection: &str,
    path: &str,
    number: u64,
) -> Request {
    match choice.weighted(&[12, 14, 26, 28, 10, 6, 4]) {
        0 => reads::get(choice, path),
        1 => reads::list(choice, resource, collection, number),
        2 => update(choice, resource, object, path),
        3 => {
            let request = patches::patch(choice, resource, object, path);
            options(choice, request, resource, 40)
        }
        4 => subresource(choice, resource, object, path),
        5 => {
            let precondition = match choice.below(3) {
                0 => json!({"preconditions": {"uid": "5f0e1d2c-0000-4000-8000-000000000000"}}),
                1 => json!({"preconditions": {"resourceVersion": "1"}}),
                _ => json!({"preconditions": {"uid": "${uid}", "resourceVersion": "2"}}),
            };
            Request::new("delete", "DELETE", path).json(precondition)
        }
        _ => Request::new("create", "POST", collection).json(object.clone()),
    }
}

fn update(choice: &mut Choice, resource: &Resource, object: &Value, path: &str) -> Request {
    use crate::edit::{Edit, Step};
    let mut edits = Vec::new();
    let meta = |field: &str, value: Option<Value>| Edit {
        path: vec![Step::Field("metadata".into()), Step::Field(field.into())],
        value,
    };
    if choice.percent(80) {
        edits.push(mutation::edit(choice, &resource.schema, object, None));
    }
    match choice.below(14) {
        0 => edits.push(meta("resourceVersion", Some("1".into()))),
        1 => edits.push(meta("resourceVersion", None)),
        2 => edits.push(meta("uid", Some("5f0e1d2c-0000-4000-8000-000000000000".into()))),
        3 => edits.push(meta("name", Some("other".into()))),
        4 => edits.push(meta("managedFields", choice.one(&[None, Some(json!([])), Some(json!([{}]))]).clone())),
        5 => edits.push(meta("resourceVersion", Some((*choice.one(&["x", "-1", "0"])).into()))),
        _ => {}
    }
    let request = Request::new("update", "PUT", path).body(Body::Last(edits));
    options(choice, request, resource, 40)
}

fn subresource(choice: &mut Choice, resource: &Resource, object: &Value, path: &str) -> Request {
    let usable: Vec<&String> =
        resource.subresources.iter().filter(|name| ["status", "scale", "resize"].contains(&name.as_str())).collect();
    if usable.is_empty() || choice.percent(6) {
        let below = *choice.one(&["nothing", "status", "scale"]);
        return Request::new("subresource", "GET", format!("{path}/{below}"));
    }
    let below = (*choice.one(&usable)).clone();
    let at = format!("{path}/{below}");
    match (below.as_str(), choice.below(4)) {
        (_, 0) => Request::new("subresource", "GET", at),
        ("scale", _) => {
            let replicas = choice.one(&[json!(3), json!(0), json!(-1), json!("x"), json!(null)]).clone();
            let patch = json!({"spec": {"replicas": replicas}});
            Request::new("subresource", "PATCH", at).content_type("application/merge-patch+json").json(patch)
        }
        _ => {
            let top = if below == "resize" { "spec" } else { "status" };
            let edit = mutation::edit(choice, &resource.schema, object, Some(top));
            let request = Request::new("subresource", "PUT", at).body(Body::Last(vec![edit]));
            options(choice, request, resource, 30)
        }
    }
}

fn delete(choice: &mut Choice, path: &str, collection: &str, namespaced: bool) -> Request {
    if namespaced && choice.percent(10) {
        return Request::new("delete collection", "DELETE", collection).query("dryRun", "All");
    }
    let body = choice
        .one(&[
            json!({}),
            json!({"propagationPolicy": "Foreground"}),
            json!({"propagationPolicy": "Orphan"}),
            json!({"propagationPolicy": "Background"}),
            json!({"propagationPolicy": "x"}),
            json!({"orphanDependents": true, "propagationPolicy": "Orphan"}),
            json!({"gracePeriodSeconds": 0}),
            json!({"gracePeriodSeconds": -5}),
            json!({"preconditions": {"uid": "${uid}"}}),
            json!({"dryRun": ["All"]}),
            json!({"dryRun": ["x"]}),
            json!({"kind": "Other", "apiVersion": "v1"}),
            json!({"unknown": 1}),
        ])
        .clone();
    let request = Request::new("delete", "DELETE", path).json(body);
    match choice.percent(10) {
        true => request.query("gracePeriodSeconds", *choice.one(&["0", "x", "5"])),
        false => request,
    }
}
