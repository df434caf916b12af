//! OpenAPI documents of extension API servers: the part of a Swagger document that is about one version, its way into
//! the document of all, and its form as OpenAPI v3. Pure.
//!
//! Source: `pkg/aggregator/aggregator.go` and `pkg/openapiconv` of kube-openapi.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

const DEFINITIONS: &str = "#/definitions/";
const PARAMETERS: &str = "#/parameters/";
const GVK: &str = "x-kubernetes-group-version-kind";

/// The part of a Swagger document with the paths below `root`, and what these paths refer to.
pub fn part_of(mut document: Value, root: &str) -> Value {
    let prefix = format!("/{root}/");
    let paths: Map<String, Value> = match document["paths"].take() {
        Value::Object(paths) => paths.into_iter().filter(|(path, _)| path.starts_with(&prefix)).collect(),
        _ => Map::new(),
    };
    let part = |name: &str, refer: &str| -> Map<String, Value> {
        let all = document[name].as_object().cloned().unwrap_or_default();
        let mut used = BTreeSet::new();
        paths.values().for_each(|path| follow(path, refer, &all, &mut used));
        all.into_iter().filter(|(name, _)| used.contains(name)).collect()
    };
    let (definitions, parameters) = (part("definitions", DEFINITIONS), part("parameters", PARAMETERS));
    json!({"paths": paths, "definitions": definitions, "parameters": parameters})
}

/// Collects what `value` refers to in `all`, directly or through others.
fn follow(value: &Value, refer: &str, all: &Map<String, Value>, used: &mut BTreeSet<String>) {
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(map) => {
                if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix(refer))
                    && used.insert(name.to_owned())
                    && let Some(target) = all.get(name)
                {
                    waiting.push(target);
                }
                waiting.extend(map.values());
            }
            Value::Array(list) => waiting.extend(list),
            _ => {}
        }
    }
}

/// Adds a part to the document of all. Paths that are there already stay as they are; a definition that has the name of
/// another gets a new one.
pub fn merge(all: &mut Value, part: &Value) {
    let taken = |path: &String| all["paths"].get(path).is_some();
    let fresh: Vec<(String, Value)> = part["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(path, _)| !taken(path))
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect();
    if fresh.is_empty() {
        return;
    }
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    for (section, refer) in [("definitions", DEFINITIONS), ("parameters", PARAMETERS)] {
        for (name, new) in part[section].as_object().into_iter().flatten() {
            let free = free_name(&all[section], &part[section], name, new);
            if free != *name {
                renamed.insert(format!("{refer}{name}"), format!("{refer}{free}"));
            }
        }
    }
    let with_names = |value: &Value| {
        let mut value = value.clone();
        rename(&mut value, &renamed);
        value
    };
    for (section, refer) in [("definitions", DEFINITIONS), ("parameters", PARAMETERS)] {
        for (name, new) in part[section].as_object().into_iter().flatten() {
            let name = renamed.get(&format!("{refer}{name}")).and_then(|to| to.strip_prefix(refer)).unwrap_or(name);
            let merged = match all[section].get(name) {
                Some(known) => with_kinds(known, new),
                None => with_names(new),
            };
            put(all, section, name, merged);
        }
    }
    for (path, item) in fresh {
        put(all, "paths", &path, with_names(&item));
    }
}

fn put(all: &mut Value, section: &str, name: &str, value: Value) {
    if !all[section].is_object() {
        all[section] = json!({});
    }
    all[section][name] = value;
}

/// The name under which a definition goes into `known`: its own, if that is free or has the same definition.
fn free_name(known: &Value, own: &Value, name: &str, new: &Value) -> String {
    let fits = |name: &str| known.get(name).is_none_or(|known| is_same(known, new));
    if fits(name) {
        return name.to_owned();
    }
    let mut numbered = (2_u64..).map(|n| format!("{name}_v{n}"));
    let free = numbered.find(|name| fits(name) && own.get(name).is_none());
    free.unwrap_or_else(|| name.to_owned())
}

/// Whether two definitions differ in nothing but the kinds that have them.
fn is_same(one: &Value, other: &Value) -> bool {
    let without_kinds = |value: &Value| {
        let mut value = value.clone();
        if let Some(map) = value.as_object_mut() {
            map.shift_remove(GVK);
        }
        value
    };
    without_kinds(one) == without_kinds(other)
}

/// A known definition with the kinds of both.
fn with_kinds(known: &Value, new: &Value) -> Value {
    let mut kinds = known[GVK].as_array().cloned().unwrap_or_default();
    let before = kinds.len();
    for kind in new[GVK].as_array().into_iter().flatten() {
        if !kinds.contains(kind) {
            kinds.push(kind.clone());
        }
    }
    let mut merged = known.clone();
    if kinds.len() > before {
        kinds.sort_by_cached_key(|kind| {
            let text = |field: &str| kind[field].as_str().unwrap_or_default().to_owned();
            format!("{}/{}.{}", text("group"), text("version"), text("kind"))
        });
        merged[GVK] = kinds.into();
    }
    merged
}

/// Puts new names into all references.
fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    if names.is_empty() {
        return;
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value.as_str().and_then(|text| names.get(text))) {
                    ("$ref", Some(new)) => *value = new.as_str().into(),
                    _ => rename(value, names),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rename(value, names)),
        _ => {}
    }
}

/// A part of a Swagger document as OpenAPI v3.
pub fn converted(part: &Value) -> Value {
    let mut paths = Map::new();
    for (path, item) in part["paths"].as_object().into_iter().flatten() {
        let mut out = Map::new();
        for (key, value) in item.as_object().into_iter().flatten() {
            let value = match key.as_str() {
                "parameters" => parameters(value, &part["parameters"]),
                "get" | "put" | "post" | "delete" | "options" | "head" | "patch" => operation(value, part),
                _ => value.clone(),
            };
            out.insert(key.clone(), value);
        }
        paths.insert(path.clone(), out.into());
    }
    let mut document = json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths, "components": {"schemas": part["definitions"]}});
    relocate(&mut document);
    document
}

fn operation(operation: &Value, part: &Value) -> Value {
    let mut out = operation.clone();
    let types = |field: &str| -> Vec<String> {
        let own = operation[field].as_array().cloned().unwrap_or_default();
        let own: Vec<String> = own.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if own.is_empty() { vec!["application/json".to_owned()] } else { own }
    };
    let content = |schema: &Value, types: Vec<String>| -> Value {
        types.into_iter().map(|name| (name, json!({"schema": schema}))).collect::<Map<_, _>>().into()
    };
    let all = operation["parameters"].as_array().cloned().unwrap_or_default();
    let body = all.iter().find(|parameter| parameter["in"] == "body");
    if let Some(body) = body {
        out["requestBody"] = json!({"content": content(&body["schema"], types("consumes"))});
        if body["required"] == true {
            out["requestBody"]["required"] = true.into();
        }
    }
    if !all.is_empty() {
        out["parameters"] = parameters(&operation["parameters"], &part["parameters"]);
    }
    for (_, response) in out["responses"].as_object_mut().into_iter().flatten() {
        let Some(response) = response.as_object_mut() else { continue };
        if let Some(schema) = response.shift_remove("schema") {
            response.insert("content".into(), content(&schema, types("produces")));
        }
    }
    if let Some(out) = out.as_object_mut() {
        for field in ["consumes", "produces", "schemes"] {
            out.shift_remove(field);
        }
    }
    out
}

/// Parameters with their types in a schema, without bodies; `shared` has those that are referred to.
fn parameters(list: &Value, shared: &Value) -> Value {
    const OF_SCHEMA: [&str; 6] = ["type", "format", "uniqueItems", "items", "enum", "default"];
    let resolve = |one: &Value| {
        let name = one["$ref"].as_str().and_then(|text| text.strip_prefix(PARAMETERS));
        name.and_then(|name| shared.get(name)).unwrap_or(one).clone()
    };
    let all = list.as_array().into_iter().flatten().map(resolve);
    all.filter(|one| one["in"] != "body")
        .map(|mut one| {
            let mut schema = Map::new();
            if let Some(map) = one.as_object_mut() {
                for field in OF_SCHEMA {
                    if let Some(value) = map.shift_remove(field) {
                        schema.insert(field.to_owned(), value);
                    }
                }
                map.insert("schema".to_owned(), schema.into());
            }
            one
        })
        .collect()
}

/// Points references to where OpenAPI v3 has definitions.
fn relocate(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let moved = value.as_str().filter(|_| key == "$ref").and_then(|text| text.strip_prefix(DEFINITIONS));
                match moved.map(|name| format!("#/components/schemas/{name}")) {
                    Some(text) => *value = text.into(),
                    None => relocate(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(relocate),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swagger() -> Value {
        let get = |name: &str| {
            json!({"get": {"produces": ["application/json"], "parameters": [{"$ref": "#/parameters/limit"},
                {"in": "body", "name": "body", "required": true, "schema": {"$ref": "#/definitions/Meta"}}],
                "responses": {"200": {"description": "OK", "schema": {"$ref": format!("#/definitions/{name}")}}}}})
        };
        json!({"paths": {"/apis/a.io/v1/as": get("A"), "/apis/a.io/v10/as": get("B"), "/api/v1/pods": get("B")},
            "parameters": {"limit": {"in": "query", "name": "limit", "type": "integer", "uniqueItems": true},
                "other": {}},
            "definitions": {"A": {"properties": {"meta": {"$ref": "#/definitions/Meta"}}}, "B": {},
                "Meta": {"type": "object", GVK: [{"group": "a.io", "version": "v1", "kind": "X"}]}}})
    }

    #[test]
    fn a_server_speaks_for_its_own_version_only() {
        let part = part_of(swagger(), "apis/a.io/v1");
        let keys = |section: &str| part[section].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys("paths"), ["/apis/a.io/v1/as"]);
        assert_eq!(keys("definitions"), ["A", "Meta"]);
        assert_eq!(keys("parameters"), ["limit"]);
    }

    #[test]
    fn definitions_with_one_name_are_renamed_unless_they_are_the_same() {
        let mut all = json!({"paths": {"/api": {}}, "definitions": {"A": {"type": "string"},
            "Meta": {"type": "object", GVK: [{"group": "", "version": "v1", "kind": "Y"}]}}});
        merge(&mut all, &part_of(swagger(), "apis/a.io/v1"));
        assert_eq!(all["definitions"]["A"], json!({"type": "string"}));
        assert_eq!(all["definitions"]["A_v2"]["properties"]["meta"]["$ref"], "#/definitions/Meta");
        let answer = &all["paths"]["/apis/a.io/v1/as"]["get"]["responses"]["200"];
        assert_eq!(answer["schema"]["$ref"], "#/definitions/A_v2");
        assert_eq!(all["definitions"]["Meta"][GVK].as_array().unwrap().len(), 2);
        let before = all.clone();
        merge(&mut all, &part_of(swagger(), "apis/a.io/v1"));
        assert_eq!(all, before, "paths that are there are not taken over");
    }

    #[test]
    fn the_newer_form_has_bodies_types_and_definitions_in_their_places() {
        let document = converted(&part_of(swagger(), "apis/a.io/v1"));
        let get = &document["paths"]["/apis/a.io/v1/as"]["get"];
        assert_eq!(
            get["parameters"],
            json!([{"in": "query", "name": "limit",
            "schema": {"type": "integer", "uniqueItems": true}}])
        );
        let meta = json!({"$ref": "#/components/schemas/Meta"});
        assert_eq!(get["requestBody"], json!({"required": true, "content": {"application/json": {"schema": meta}}}));
        let a = &get["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(*a, json!({"$ref": "#/components/schemas/A"}));
        assert_eq!(document["components"]["schemas"]["A"]["properties"]["meta"], meta);
        assert_eq!(get["produces"], Value::Null);
    }
}
