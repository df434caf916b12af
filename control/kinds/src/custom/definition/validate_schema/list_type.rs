//! Why `x-kubernetes-list-type`, and the keys of a list of type `map`, may not stand in a schema.

use serde_json::{Value, json};

use super::Walk;
use crate::{
    custom::structural::{Structural, check},
    kinds::FieldError,
};

impl Walk<'_> {
    /// `x-kubernetes-list-type` and what goes with it.
    pub(super) fn list(&mut self, path: &str, text: &Value, schema: &Structural) {
        let list_type = schema.list_type.as_deref();
        let at_type = format!("{path}.x-kubernetes-list-type");
        let items = schema.items.as_deref();
        if list_type.is_some() {
            let is_array =
                self.must_be_type(path, schema, "array", "must be array if x-kubernetes-list-type is specified");
            if let (true, Some("set"), Some(items)) = (is_array, list_type, items) {
                let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
                if items.r#type == "array" && items.list_type.as_deref().is_some_and(|inner| inner != "atomic") {
                    let at = format!("{path}.items.x-kubernetes-list-type");
                    self.errors.push(FieldError::invalid(at, &json!(items.list_type), why));
                }
                if items.r#type == "object" && items.map_type.as_deref() != Some("atomic") {
                    let at = format!("{path}.items.x-kubernetes-map-type");
                    self.errors.push(FieldError::invalid(at, &json!(items.list_type), why));
                }
            }
        }
        match list_type {
            None | Some("atomic" | "set" | "map") => {}
            Some(other) => {
                let supported = ["atomic", "set", "map"];
                self.errors.push(FieldError::not_supported(&at_type, &json!(other), &supported));
            }
        }
        if !schema.list_map_keys.is_empty() && list_type != Some("map") {
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.errors.push(match list_type {
                None => FieldError::required(&at_type, why),
                Some(other) => FieldError::invalid(&at_type, &json!(other), why),
            });
        }
        if list_type == Some("map") {
            self.map_keys(path, text, schema);
        }
        if let (Some(list_type @ ("set" | "map")), Some(items)) = (list_type, items) {
            if items.nullable {
                let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
                self.errors.push(FieldError::forbidden(format!("{path}.items.nullable"), &why));
            }
            if list_type == "map" {
                self.keys_are_always_there(path, schema, items);
            }
        }
    }

    fn map_keys(&mut self, path: &str, text: &Value, schema: &Structural) {
        let at_keys = format!("{path}.x-kubernetes-list-map-keys");
        if schema.list_map_keys.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            self.errors.push(FieldError::required(&at_keys, why));
        }
        let Some(items) = schema.items.as_deref() else {
            let why = "must have a schema if x-kubernetes-list-type is map";
            if text["items"].is_null() {
                self.errors.push(FieldError::required(format!("{path}.items"), why));
            }
            return;
        };
        if items.r#type != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            self.errors.push(FieldError::invalid(format!("{path}.items.type"), &json!(items.r#type), why));
            return;
        }
        for (index, key) in schema.list_map_keys.iter().enumerate() {
            match items.properties.get(key) {
                Some(property) if matches!(property.r#type.as_str(), "array" | "object") => {
                    let at = format!("{}.type", check::property(&format!("{path}.items"), key));
                    let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.errors.push(FieldError::invalid(at, &json!(items.r#type), why));
                }
                Some(_) => {}
                None => {
                    let why = "entries must all be names of item properties";
                    self.errors.push(FieldError::invalid(&at_keys, &json!(schema.list_map_keys), why));
                }
            }
            if schema.list_map_keys[..index].contains(key) {
                let why = "must not contain duplicate entries";
                self.errors.push(FieldError::invalid(&at_keys, &json!(schema.list_map_keys), why));
            }
        }
    }

    fn keys_are_always_there(&mut self, path: &str, schema: &Structural, items: &Structural) {
        for key in &schema.list_map_keys {
            let Some(property) = items.properties.get(key) else { continue };
            let at = check::property(&format!("{path}.items"), key);
            if property.default.is_none() && !items.checks.required.contains(key) {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                property";
                self.errors.push(FieldError::required(format!("{at}.default"), why));
            }
            if property.nullable {
                let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.errors.push(FieldError::forbidden(format!("{at}.nullable"), why));
            }
        }
    }
}
