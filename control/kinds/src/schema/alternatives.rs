//! Parts of CustomResourceDefinitions that are a schema or something else. Go reads each with code of its own, which is
//! strict about what stands there, and says nothing of unknown fields below.

use super::{Type, TypeId, Types};

/// What may stand in the place of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternative {
    /// `additionalProperties`, `additionalItems`: a boolean. Anything else is refused.
    Bool,
    /// `items`: a list of schemas. Anything else is nothing.
    Schemas,
    /// `dependencies`: a list of texts. Anything else is nothing.
    Texts,
}

/// What a text, a number or a list in the place of a boolean is told.
pub const NEITHER: &str = "boolean or JSON schema expected";

const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

impl Types {
    /// What may stand in the place of a schema at a type, and the type of that schema; `None` if it is another type.
    pub fn alternative(&self, id: TypeId) -> Option<(Alternative, TypeId)> {
        let alternative = match self.definition(id)?.name.strip_prefix(SCHEMA)? {
            "OrBool" => Alternative::Bool,
            "OrArray" => Alternative::Schemas,
            "OrStringArray" => Alternative::Texts,
            _ => return None,
        };
        Some((alternative, self.by_name(SCHEMA)?))
    }

    /// The type of the items of a list in the place of `schema`; `None` where no list may stand.
    pub fn alternative_item(&self, alternative: Alternative, schema: TypeId) -> Option<TypeId> {
        match alternative {
            Alternative::Bool => None,
            Alternative::Schemas => Some(schema),
            Alternative::Texts => match self.get(self.object(schema)?.field("required")?.r#type) {
                Type::List(text) => Some(*text),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::schema::{Decoded, Schema};

    fn decode(schema: Value) -> Result<Decoded, String> {
        let version = json!({"name": "v1", "schema": {"openAPIV3Schema": {"properties": {"a": schema}}}});
        let definition = json!({"spec": {"versions": [version]}});
        let kind = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition";
        let by_text = Schema::builtin(kind).unwrap().decode(definition.to_string().as_bytes());
        let by_value = Schema::builtin(kind).unwrap().decode_value(definition);
        assert_eq!(by_text.is_ok(), by_value.is_ok());
        by_value.map_err(|error| error.message)
    }

    #[test]
    fn a_schema_or_something_else_is_read_as_either() {
        let read = |schema: Value| {
            let decoded = decode(schema).unwrap();
            assert_eq!(decoded.warnings, [], "Go says nothing of unknown fields there");
            let schema = &decoded.value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            schema["properties"]["a"].clone()
        };
        let inner = json!({"type": "string", "unknown": 1, "format": "", "items": null});
        for (given, expected) in [
            (json!({"additionalProperties": true}), json!({"additionalProperties": true})),
            (json!({"additionalProperties": false}), json!({"additionalProperties": false})),
            (json!({"additionalProperties": null}), json!({})),
            (json!({"additionalProperties": inner}), json!({"additionalProperties": {"type": "string"}})),
            (json!({"items": inner}), json!({"items": {"type": "string"}})),
            (json!({"items": [inner, {}]}), json!({"items": [{"type": "string"}, {}]})),
            (json!({"items": []}), json!({})),
            (json!({"items": "x"}), json!({})),
            (json!({"items": true}), json!({})),
            (json!({"items": 5}), json!({})),
            (json!({"dependencies": {"x": ["y"]}}), json!({"dependencies": {"x": ["y"]}})),
            (json!({"items": {"items": {"unknown": 1}}}), json!({"items": {"items": {}}})),
        ] {
            assert_eq!(read(given.clone()), expected, "{given}");
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for given in [json!("x"), json!(5), json!(1.5), json!([]), json!([{}])] {
            let refused = decode(json!({"additionalProperties": given})).unwrap_err();
            assert_eq!(refused, super::NEITHER, "{given}");
        }
        let nested = decode(json!({"items": {"additionalProperties": 1}})).unwrap_err();
        assert_eq!(nested, super::NEITHER);
        let mistyped = decode(json!({"items": {"maxLength": "x"}})).unwrap_err();
        assert!(mistyped.starts_with("json: cannot unmarshal string into Go struct field "), "{mistyped}");
        assert!(decode(json!({"items": [5]})).is_err());
    }
}
