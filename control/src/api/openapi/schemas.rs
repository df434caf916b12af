//! The definitions of all served kinds, from k8s-openapi's schemas with what those lack, and their shape as a graph.
//!
//! [`definitions`] is the material of the OpenAPI documents and is made anew each time (some milliseconds, some megabytes);
//! [`Shapes`] is what patches and protobuf need of it, kept for good.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        authentication::v1::{SelfSubjectReview, TokenRequest},
        authorization::v1::SelfSubjectAccessReview,
        autoscaling::v1::Scale,
        certificates::v1::CertificateSigningRequest,
        coordination::v1::Lease,
        core::v1 as core,
        discovery::v1::EndpointSlice,
        events::v1::Event,
        policy::v1::Eviction,
    },
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Status},
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::kinds::{Kinds, Storage};

use super::merging;

/// Every definition by its full name, references as `#/components/schemas/NAME`.
pub fn definitions() -> BTreeMap<String, Value> {
    let settings = SchemaSettings::openapi3().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.transforms.clear();
    });
    let mut generator = SchemaGenerator::new(settings);
    macro_rules! add {
        ($($kind:ty),* $(,)?) => { $( generator.subschema_for::<$kind>(); )* };
    }
    add!(
        core::ConfigMap,
        core::Endpoints,
        core::Event,
        core::Namespace,
        core::Node,
        core::Pod,
        core::Secret,
        core::Service,
        core::ServiceAccount,
        core::Binding,
        Deployment,
        ReplicaSet,
        SelfSubjectReview,
        TokenRequest,
        SelfSubjectAccessReview,
        Scale,
        CertificateSigningRequest,
        Lease,
        EndpointSlice,
        Event,
        Eviction,
        DeleteOptions,
        ListMeta,
        Status,
    );
    let mut definitions: BTreeMap<String, Value> = generator.take_definitions(false).into_iter().collect();
    for (name, definition) in &mut definitions {
        complete(name, definition);
    }
    add_superseded(&mut definitions);
    definitions
}

/// Adds the merge extensions and puts references in the form Kubernetes publishes: alone, or in an `allOf` beside a description.
fn complete(name: &str, definition: &mut Value) {
    if merging::is_atomic(name) {
        definition["x-kubernetes-map-type"] = "atomic".into();
    }
    if name.ends_with(".IntOrString") {
        definition["format"] = "int-or-string".into();
        definition["oneOf"] = json!([{"type": "integer"}, {"type": "string"}]);
    } else if name.ends_with(".Quantity") {
        definition["oneOf"] = json!([{"type": "string"}, {"type": "number"}]);
    }
    if let Some(definition) = definition.as_object_mut() {
        definition.shift_remove("x-kubernetes-int-or-string");
    }
    for (field, schema) in definition.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(schema) = schema.as_object_mut() {
            if schema.len() > 1
                && let Some(reference) = schema.shift_remove("$ref")
            {
                schema.insert("allOf".into(), json!([{ "$ref": reference }]));
            }
            if let Some(merging) = merging::of(name, field) {
                schema.extend(merging.extensions());
            }
        }
    }
}

/// The superseded versions have the schemas of the kinds they are stored as, under names of their own.
fn add_superseded(definitions: &mut BTreeMap<String, Value>) {
    for kind in Kinds::built_in().iter() {
        if let Storage::As(stored) = &kind.storage
            && !definitions.contains_key(&*kind.schema)
            && let Some(definition) = definitions.get(&*stored.kind.schema).cloned()
        {
            definitions.insert(kind.schema.to_string(), definition);
        }
    }
}

/// The definition that a schema refers to, if it refers to one.
pub fn reference(schema: &Value) -> Option<&str> {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str())?;
    reference.rsplit('/').next()
}

/// What the definitions say of the form of objects.
pub struct Shapes(HashMap<String, HashMap<String, Field>>);

/// The form of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub container: Container,
    pub holds: Holds,
}

/// Where the values of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// In the field itself.
    One,
    /// In a list.
    List,
    /// In a map by free keys.
    Map,
}

/// What each value of a field is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// An object of this definition.
    Object(String),
    /// Base64 text.
    Bytes,
    /// RFC 3339 text.
    Time,
    Quantity,
    IntOrString,
    /// Anything else: text, numbers, truth values, free JSON.
    Plain,
}

impl Shapes {
    pub fn all() -> &'static Shapes {
        static ALL: LazyLock<Shapes> = LazyLock::new(|| Shapes::of(&definitions()));
        &ALL
    }

    fn of(definitions: &BTreeMap<String, Value>) -> Self {
        let fields = |definition: &Value| -> HashMap<String, Field> {
            let properties = definition["properties"].as_object().into_iter().flatten();
            properties.map(|(name, schema)| (name.clone(), field(schema, definitions))).collect()
        };
        Self(definitions.iter().map(|(name, definition)| (name.clone(), fields(definition))).collect())
    }

    pub fn field(&self, definition: &str, field: &str) -> Option<&Field> {
        self.0.get(definition)?.get(field)
    }

    /// All fields of a definition; `None` where there is no such definition.
    pub fn fields(&self, definition: &str) -> Option<&HashMap<String, Field>> {
        self.0.get(definition)
    }
}

fn field(schema: &Value, definitions: &BTreeMap<String, Value>) -> Field {
    let (container, inner) = if schema["items"].is_object() {
        (Container::List, &schema["items"])
    } else if schema["additionalProperties"].is_object() {
        (Container::Map, &schema["additionalProperties"])
    } else {
        (Container::One, schema)
    };
    let holds = match (reference(inner), inner["format"].as_str()) {
        (Some(name), _) if name.ends_with(".Quantity") => Holds::Quantity,
        (Some(name), _) if name.ends_with(".IntOrString") => Holds::IntOrString,
        (Some(name), _) if definitions.get(name).is_some_and(|d| d["properties"].is_object()) => {
            Holds::Object(name.to_owned())
        }
        (Some(name), _) if definitions.get(name).is_some_and(|d| d["format"] == "date-time") => Holds::Time,
        (None, Some("byte")) => Holds::Bytes,
        (None, Some("date-time")) => Holds::Time,
        _ => Holds::Plain,
    };
    Field { container, holds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_definition_and_no_reference_leads_nowhere() {
        let definitions = definitions();
        for kind in Kinds::built_in().iter() {
            assert!(definitions.contains_key(&*kind.schema), "{kind:?}");
        }
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str() {
                    Some(reference) if key == "$ref" => found.push(reference.to_owned()),
                    _ => references(value, found),
                }),
                Value::Array(list) => list.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        definitions.values().for_each(|d| references(d, &mut found));
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(definitions.contains_key(name), "{reference}");
        }
    }

    #[test]
    fn shapes_tell_lists_maps_and_special_values_apart() {
        let field = |definition: &str, field: &str| Shapes::all().field(definition, field).unwrap().clone();
        let is = |container, holds| Field { container, holds };
        let container = Holds::Object("io.k8s.api.core.v1.Container".into());
        assert_eq!(field("io.k8s.api.core.v1.PodSpec", "containers"), is(Container::List, container));
        assert_eq!(field("io.k8s.api.core.v1.Secret", "data"), is(Container::Map, Holds::Bytes));
        assert_eq!(field("io.k8s.api.core.v1.ServicePort", "targetPort"), is(Container::One, Holds::IntOrString));
        let limits = field("io.k8s.api.core.v1.ResourceRequirements", "limits");
        assert_eq!(limits, is(Container::Map, Holds::Quantity));
        let created = field("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp");
        assert_eq!(created, is(Container::One, Holds::Time));
        assert_eq!(field("io.k8s.api.coordination.v1.LeaseSpec", "renewTime"), is(Container::One, Holds::Time));
    }
}
