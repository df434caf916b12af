//! The OpenAPI documents: what kubectl reads to validate, explain and apply.
//!
//! [`OpenApi`] prepares them at the first request and keeps the bytes. `schemas` makes the definitions from the kinds'
//! schemas, `paths` lists the operations, `v2` puts it all in the older form.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    kinds::{Kind, Kinds},
    schema::Schema,
};

mod paths;
mod schemas;
pub mod v2;

/// The documents of all served kinds.
pub struct OpenApi {
    kinds: Arc<Kinds>,
    prepared: OnceLock<Prepared>,
    /// `/openapi/v2` as JSON and as protobuf; few clients ask.
    older: OnceLock<[Bytes; 2]>,
}

struct Prepared {
    index: Bytes,
    /// By path: `api/v1`, `apis/apps/v1`.
    documents: BTreeMap<String, Document>,
}

/// The document of one group and version.
#[derive(Clone, Debug)]
pub struct Document {
    /// The text that is sent.
    pub json: Bytes,
    /// Upper-case hex; a URL with it as `?hash=` may be cached for ever, and it serves as the `ETag`.
    pub hash: String,
}

impl OpenApi {
    /// Prepares the documents of all of `kinds`.
    pub fn new(kinds: Arc<Kinds>) -> Self {
        Self { kinds, prepared: OnceLock::new(), older: OnceLock::new() }
    }

    /// `GET /openapi/v3`
    pub fn index(&self) -> Bytes {
        self.prepared().index.clone()
    }

    /// `GET /openapi/v3/{path}`; `path` is `api/v1` or `apis/GROUP/VERSION`.
    pub fn document(&self, path: &str) -> Option<Document> {
        self.prepared().documents.get(path).cloned()
    }

    /// `GET /openapi/v2` with its `Content-Type`.
    pub fn v2(&self, accept: &str) -> (Bytes, &'static str) {
        let [json, protobuf] = self.older.get_or_init(|| older(&self.kinds));
        match v2::wants_protobuf(accept) {
            true => (protobuf.clone(), v2::PROTOBUF),
            false => (json.clone(), "application/json"),
        }
    }

    fn prepared(&self) -> &Prepared {
        self.prepared.get_or_init(|| Prepared::of(&self.kinds))
    }
}

impl Prepared {
    fn of(kinds: &Kinds) -> Self {
        let definitions = published_definitions(kinds, 3);
        let mut by_version: BTreeMap<String, Vec<&Kind>> = BTreeMap::new();
        for kind in kinds.iter() {
            by_version.entry(paths::root(kind)).or_default().push(kind);
        }
        let documents: BTreeMap<String, Document> =
            by_version.into_iter().map(|(path, kinds)| (path, document(&kinds, &definitions))).collect();
        let urls: Map<String, Value> = documents
            .iter()
            .map(|(path, document)| {
                let url = format!("/openapi/v3/{path}?hash={}", document.hash);
                (path.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        Self { index: Bytes::from(json!({"paths": urls}).to_string()), documents }
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
        "components": {"schemas": needed},
    });
    let json = Bytes::from(json.to_string());
    let hash = hex::encode_upper(Sha256::digest(&json));
    Document { json, hash }
}

fn older(kinds: &Kinds) -> [Bytes; 2] {
    let paths = kinds.iter().flat_map(|kind| paths::of(kind)).collect();
    let document = v2::document(&paths, &published_definitions(kinds, 2));
    [Bytes::from(document.to_string()), Bytes::from(v2::protobuf(&document))]
}

/// The definitions with the names of kinds on those that are kinds, and with the lists of kinds.
/// `version` is 2 or 3: what custom kinds publish differs.
fn published_definitions(kinds: &Kinds, version: u8) -> BTreeMap<String, Value> {
    let beside = paths::BESIDE_KINDS.into_iter().filter_map(Schema::builtin);
    let mut definitions = schemas::definitions(kinds.iter().map(|kind| kind.schema.clone()).chain(beside));
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
            "description": format!("{}List is a list of {}.", kind.kind, kind.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string", "description": "APIVersion of the list."},
                "items": {"type": "array", "items": item, "description": "The objects."},
                "kind": {"type": "string", "description": "Kind of the list."},
                "metadata": {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"},
            },
            "x-kubernetes-group-version-kind": named(format!("{}List", kind.kind)),
        });
        definitions.insert(format!("{}List", kind.schema.name()), list);
    }
    definitions
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
        let openapi = OpenApi::new(Kinds::built_in());
        let index = read(&openapi.index());
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
        let openapi = OpenApi::new(Kinds::built_in());
        for kind in Kinds::built_in().iter().filter(|k| k.stored().is_some()) {
            let document = read(&openapi.document(&paths::root(kind)).unwrap().json);
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
        let openapi = OpenApi::new(Kinds::built_in());
        for document in openapi.prepared().documents.values() {
            let document = read(&document.json);
            let schemas: BTreeMap<String, Value> =
                document["components"]["schemas"].as_object().unwrap().clone().into_iter().collect();
            let mut needed = BTreeMap::new();
            collect(&document, &schemas, &mut needed);
            assert_eq!(needed.len(), schemas.len());
        }
        let core = read(&openapi.document("api/v1").unwrap().json);
        let containers = &core["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    }
}
