//! The OpenAPI documents: what kubectl reads to validate, explain and apply.
//!
//! [`OpenApi`] prepares them at the first request and keeps the bytes. `schemas` makes the definitions from the kinds'
//! schemas, `paths` lists the operations, `v2` puts it all in the older form. Of the versions that other servers answer
//! for, the index says so, and the older form holds their part.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use serde_json::{Map, Value, json};

use super::subresource;
use crate::{
    aggregation::{self, RemoteSpec, Version3},
    document::Document,
    kinds::{Kind, Kinds},
};

mod parameters;
mod paths;
mod schemas;
pub mod v2;

pub use paths::root;

/// The documents of all served kinds.
pub struct OpenApi {
    kinds: Arc<Kinds>,
    /// Of the versions that other servers answer for.
    others: Arc<Vec<RemoteSpec>>,
    prepared: OnceLock<Prepared>,
    /// `/openapi/v2` as JSON and as protobuf; few clients ask.
    older: OnceLock<Older>,
}

struct Prepared {
    index: Document,
    /// By path: `api/v1`, `apis/apps/v1`.
    documents: BTreeMap<String, Document>,
}

impl OpenApi {
    /// Prepares the documents of all of `kinds`; what is in `others` of versions that are served here is not looked at.
    pub fn new(kinds: Arc<Kinds>, others: Arc<Vec<RemoteSpec>>) -> Self {
        Self { kinds, others, prepared: OnceLock::new(), older: OnceLock::new() }
    }

    /// Whether `GET /openapi/v3/{path}` is for another server to answer.
    pub fn is_served_elsewhere(&self, path: &str) -> bool {
        let mut others = self.others.iter();
        others.any(|spec| spec.root == path && matches!(spec.v3, Some(Version3::Served { .. })))
    }

    /// `GET /openapi/v3`
    pub fn index(&self) -> Document {
        self.prepared().index.clone()
    }

    /// `GET /openapi/v3/{path}`; `path` is `api/v1` or `apis/GROUP/VERSION`.
    pub fn document(&self, path: &str) -> Option<Document> {
        self.prepared().documents.get(path).cloned()
    }

    /// `GET /openapi/v2`
    pub fn v2(&self) -> &Older {
        self.older.get_or_init(|| older(&self.kinds, &self.others))
    }

    fn prepared(&self) -> &Prepared {
        self.prepared.get_or_init(|| Prepared::of(&self.kinds, &self.others))
    }
}

impl Prepared {
    fn of(kinds: &Kinds, others: &[RemoteSpec]) -> Self {
        let definitions = published_definitions(kinds, 3);
        let mut by_version: BTreeMap<String, Vec<&Kind>> = BTreeMap::new();
        for kind in kinds.iter() {
            by_version.entry(paths::root(kind)).or_default().push(kind);
        }
        let mut documents: BTreeMap<String, Document> =
            by_version.into_iter().map(|(path, kinds)| (path, document(&kinds, &definitions))).collect();
        let mut elsewhere = Map::new();
        for spec in others {
            match &spec.v3 {
                Some(_) if documents.contains_key(&spec.root) => {}
                Some(Version3::Served { url }) => {
                    elsewhere.insert(spec.root.clone(), json!({"serverRelativeURL": url}));
                }
                Some(Version3::Converted(document)) => {
                    documents.insert(spec.root.clone(), document.clone());
                }
                None => {}
            }
        }
        let urls: Map<String, Value> = documents
            .iter()
            .map(|(path, document)| {
                let url = format!("/openapi/v3/{path}?hash={}", document.hash);
                (path.clone(), json!({"serverRelativeURL": url}))
            })
            .chain(elsewhere)
            .collect();
        Self { index: Document::new(json!({"paths": urls}).to_string()), documents }
    }
}

fn document(kinds: &[&Kind], definitions: &BTreeMap<String, Value>) -> Document {
    let paths: Map<String, Value> = kinds.iter().flat_map(|kind| paths::of(kind)).collect();
    let mut needed = BTreeMap::new();
    collect(&Value::Object(paths.clone()), definitions, &mut needed);
    let json = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": concat!("fairlead-", env!("CARGO_PKG_VERSION"))},
        "paths": paths,
        "components": {"schemas": needed, "securitySchemes": {"BearerToken": bearer_token()}},
    });
    Document::new(json.to_string())
}

/// How clients say who they are.
fn bearer_token() -> Value {
    json!({"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"})
}

/// The older form of the documents, all kinds in one.
pub struct Older {
    /// As JSON text.
    pub json: Document,
    /// As gnostic's protobuf message, which kubectl asks for.
    pub protobuf: Document,
}

fn older(kinds: &Kinds, others: &[RemoteSpec]) -> Older {
    let paths = kinds.iter().flat_map(|kind| paths::of(kind)).collect();
    let mut document = v2::document(&paths, &published_definitions(kinds, 2));
    let is_served = |root: &str| kinds.iter().any(|kind| self::root(kind) == root);
    for part in others.iter().filter(|spec| !is_served(&spec.root)).filter_map(|spec| spec.v2.as_deref()) {
        aggregation::merge(&mut document, part);
    }
    Older { json: Document::new(document.to_string()), protobuf: Document::new(v2::protobuf(&document)) }
}

/// The definitions with the names of kinds on those that are kinds, and with the lists of kinds.
///
/// `version` is 2 or 3: what custom kinds publish differs.
fn published_definitions(kinds: &Kinds, version: u8) -> BTreeMap<String, Value> {
    let schemas = kinds.iter().map(|kind| kind.schema.clone()).chain(paths::beside_kinds());
    let mut definitions = schemas::definitions(schemas);
    add_general(kinds, &mut definitions);
    for kind in kinds.iter() {
        if let Some(custom) = &kind.custom {
            definitions.insert(kind.schema.name().to_owned(), custom.openapi[usize::from(version == 2)].clone());
        }
        let named = |name: String| json!([{"group": kind.group, "version": kind.version, "kind": name}]);
        if let Some(definition) = definitions.get_mut(kind.schema.name()) {
            definition["x-kubernetes-group-version-kind"] = named(kind.kind.to_string());
        }
        let item = json!({"$ref": format!("#/components/schemas/{}", kind.schema.name())});
        let list = json!({
            "description": format!("{} is a list of {}.", kind.list_kind(), kind.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string", "description": "APIVersion of the list."},
                "items": {"type": "array", "items": item, "description": "The objects."},
                "kind": {"type": "string", "description": "Kind of the list."},
                "metadata": {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"},
            },
            "x-kubernetes-group-version-kind": named(kind.list_kind().into_owned()),
        });
        definitions.insert(format!("{}List", kind.schema.name()), list);
    }
    definitions
}

/// Adds what belongs to no kind alone: patches, the events of watches, and the names of what subresources are sent.
fn add_general(kinds: &Kinds, definitions: &mut BTreeMap<String, Value>) {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
    const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
    let patch = "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.";
    definitions.insert(format!("{META}Patch"), json!({"description": patch, "type": "object"}));
    let raw = "RawExtension is an object of any kind.";
    definitions.entry(RAW.to_owned()).or_insert_with(|| json!({"description": raw, "type": "object"}));
    let event = json!({
        "description": "Event represents a single event to a watched resource.",
        "type": "object",
        "required": ["type", "object"],
        "properties": {
            "object": {"$ref": format!("#/components/schemas/{RAW}")},
            "type": {"type": "string"},
        },
    });
    definitions.insert(format!("{META}WatchEvent"), event);
    let versions: BTreeSet<(&str, &str)> = kinds.iter().map(|kind| (&*kind.group, &*kind.version)).collect();
    for name in ["DeleteOptions", "WatchEvent"] {
        let names = versions.iter().map(|(group, version)| json!({"group": group, "kind": name, "version": version}));
        if let Some(definition) = definitions.get_mut(&format!("{META}{name}")) {
            definition["x-kubernetes-group-version-kind"] = names.collect();
        }
    }
    if let Some(status) = definitions.get_mut(&format!("{META}Status")) {
        status["x-kubernetes-group-version-kind"] = json!([{"group": "", "kind": "Status", "version": "v1"}]);
    }
    for form in subresource::ALL.iter().filter_map(|subresource| subresource.form) {
        if let Some(definition) = definitions.get_mut(form.schema) {
            definition["x-kubernetes-group-version-kind"] =
                json!([{"group": form.group, "kind": form.kind, "version": form.version}]);
        }
    }
}

/// Adds every definition that `value` refers to, directly or through others.
fn collect(value: &Value, definitions: &BTreeMap<String, Value>, needed: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str().filter(|_| key == "$ref").and_then(|r| r.rsplit('/').next()) {
                    Some(name) => {
                        if !needed.contains_key(name)
                            && let Some(definition) = definitions.get(name)
                        {
                            needed.insert(name.to_owned(), definition.clone());
                            collect(definition, definitions, needed);
                        }
                    }
                    None => collect(value, definitions, needed),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, definitions, needed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn the_index_names_every_version_with_the_hash_of_its_document() {
        let openapi = OpenApi::new(Kinds::built_in(), Arc::default());
        let index = read(&openapi.index().bytes);
        for path in ["api/v1", "apis/apps/v1", "apis/apps/v1beta2", "apis/discovery.k8s.io/v1"] {
            let document = openapi.document(path).unwrap();
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            assert_eq!(index["paths"][path]["serverRelativeURL"], url.as_str());
        }
        assert!(openapi.document("apis/apps/v2").is_none());
    }

    /// What kubectl looks for before it leaves validation to the server.
    #[test]
    fn every_kind_has_a_patch_that_takes_field_validation() {
        let openapi = OpenApi::new(Kinds::built_in(), Arc::default());
        for kind in Kinds::built_in().iter().filter(|k| k.stored().is_some()) {
            let document = read(&openapi.document(&paths::root(kind)).unwrap().bytes);
            let patches = document["paths"].as_object().unwrap().values().map(|path| &path["patch"]);
            let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
            let found = patches.filter(|p| p["x-kubernetes-group-version-kind"] == gvk).any(|p| {
                p["parameters"].as_array().is_some_and(|list| list.iter().any(|p| p["name"] == "fieldValidation"))
            });
            assert!(found, "{kind:?}");
            let schema = &document["components"]["schemas"][kind.schema.name()];
            assert_eq!(schema["x-kubernetes-group-version-kind"][0], gvk, "{kind:?}");
        }
    }

    #[test]
    fn a_document_holds_every_definition_it_refers_to() {
        let openapi = OpenApi::new(Kinds::built_in(), Arc::default());
        for document in openapi.prepared().documents.values() {
            let document = read(&document.bytes);
            let schemas: BTreeMap<String, Value> =
                document["components"]["schemas"].as_object().unwrap().clone().into_iter().collect();
            let mut needed = BTreeMap::new();
            collect(&document, &schemas, &mut needed);
            assert_eq!(needed.len(), schemas.len());
        }
        let core = read(&openapi.document("api/v1").unwrap().bytes);
        let containers = &core["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    }
}
