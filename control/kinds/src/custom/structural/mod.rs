//! The structural schema of a custom resource: OpenAPI v3 with Kubernetes' extensions, read from `openAPIV3Schema`.
//!
//! A node either describes the shape of a value (`type`, `properties`, `items`, …) or only checks it (within `allOf`,
//! `anyOf`, `oneOf` and `not`); both are a [`Structural`], and [`check`] says what may stand where.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

pub mod check;
pub mod defaulting;
pub mod field_path;
pub mod pruning;

/// One node of a structural schema.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`; empty if it is not said.
    pub r#type: String,
    /// `format`
    pub format: String,
    /// `title`
    pub title: String,
    /// `description`
    pub description: String,
    /// `default`
    pub default: Option<Value>,
    /// `nullable`
    pub nullable: bool,
    /// In the order of their names, so that errors have an order, too.
    pub properties: BTreeMap<String, Structural>,
    /// `additional`
    pub additional: Additional,
    /// `items`
    pub items: Option<Box<Structural>>,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve: bool,
    /// `x-kubernetes-list-type`
    pub list_type: Option<String>,
    /// `x-kubernetes-list-map-keys`
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-map-type`
    pub map_type: Option<String>,
    /// `x-kubernetes-validations`
    pub rules: Vec<ValidationRule>,
    /// `checks`
    pub checks: Checks,
}

/// `additionalProperties`
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// Not said, or `false`.
    #[default]
    None,
    /// `true`
    Any,
    /// Values of this schema.
    Of(Box<Structural>),
}

/// What a value must fulfil beside its type.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// `maximum`
    pub maximum: Option<Number>,
    /// `exclusiveMaximum`
    pub exclusive_maximum: bool,
    /// `minimum`
    pub minimum: Option<Number>,
    /// `exclusiveMinimum`
    pub exclusive_minimum: bool,
    /// `multipleOf`
    pub multiple_of: Option<Number>,
    /// `maxLength`
    pub max_length: Option<i64>,
    /// `minLength`
    pub min_length: Option<i64>,
    /// A regular expression. One that cannot be compiled is refused when the definition is written.
    pub pattern: Option<String>,
    /// `maxItems`
    pub max_items: Option<i64>,
    /// `minItems`
    pub min_items: Option<i64>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `maxProperties`
    pub max_properties: Option<i64>,
    /// `minProperties`
    pub min_properties: Option<i64>,
    /// `required`
    pub required: Vec<String>,
    /// `enum`
    pub r#enum: Vec<Value>,
    /// `allOf`
    pub all_of: Vec<Structural>,
    /// `anyOf`
    pub any_of: Vec<Structural>,
    /// `oneOf`
    pub one_of: Vec<Structural>,
    /// `not`
    pub not: Option<Box<Structural>>,
}

/// One rule of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidationRule {
    /// `rule`
    pub rule: String,
    /// `message`
    pub message: String,
    /// `messageExpression`
    pub message_expression: String,
    /// `reason`
    pub reason: Option<String>,
    /// `fieldPath`
    pub field_path: String,
    /// `optionalOldSelf`
    pub optional_old_self: Option<bool>,
}

impl Structural {
    /// Reads a `JSONSchemaProps`, which was decoded before and so has the shape of one.
    pub fn read(schema: &Value) -> Self {
        let text = |field: &str| schema[field].as_str().unwrap_or_default().to_owned();
        let is = |field: &str| schema[field] == true;
        let properties = schema["properties"].as_object().into_iter().flatten();
        Self {
            r#type: text("type"),
            format: text("format"),
            title: text("title"),
            description: text("description"),
            default: schema.get("default").filter(|default| !default.is_null()).cloned(),
            nullable: is("nullable"),
            properties: properties.map(|(name, property)| (name.clone(), Self::read(property))).collect(),
            additional: Additional::read(&schema["additionalProperties"]),
            items: schema.get("items").filter(|items| items.is_object()).map(|items| Box::new(Self::read(items))),
            embedded: is("x-kubernetes-embedded-resource"),
            int_or_string: is("x-kubernetes-int-or-string"),
            preserve: is("x-kubernetes-preserve-unknown-fields"),
            list_type: schema["x-kubernetes-list-type"].as_str().map(str::to_owned),
            list_map_keys: texts(&schema["x-kubernetes-list-map-keys"]),
            map_type: schema["x-kubernetes-map-type"].as_str().map(str::to_owned),
            rules: schema["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
                .map(ValidationRule::read)
                .collect(),
            checks: Checks::read(schema),
        }
    }

    /// The schema of the values under `key`, where the value is an object.
    pub fn of_key(&self, key: &str) -> Option<&Structural> {
        self.properties.get(key).or(match &self.additional {
            Additional::Of(schema) => Some(schema),
            Additional::None | Additional::Any => None,
        })
    }

    /// Whether `pred` holds of this node or one that describes a part of its value.
    pub fn any(&self, pred: &dyn Fn(&Structural) -> bool) -> bool {
        let nested = self.checks.all_of.iter().chain(&self.checks.any_of).chain(&self.checks.one_of);
        pred(self)
            || self.properties.values().any(|property| property.any(pred))
            || self.items.iter().any(|items| items.any(pred))
            || matches!(&self.additional, Additional::Of(schema) if schema.any(pred))
            || nested.chain(self.checks.not.as_deref()).any(|schema| schema.any(pred))
    }
}

impl Additional {
    fn read(value: &Value) -> Self {
        match value {
            Value::Bool(true) => Self::Any,
            Value::Object(_) => Self::Of(Box::new(Structural::read(value))),
            _ => Self::None,
        }
    }
}

impl Checks {
    fn read(schema: &Value) -> Self {
        let number = |field: &str| schema[field].as_number().cloned();
        let count = |field: &str| schema[field].as_i64();
        let schemas = |field: &str| schema[field].as_array().into_iter().flatten().map(Structural::read).collect();
        Self {
            maximum: number("maximum"),
            exclusive_maximum: schema["exclusiveMaximum"] == true,
            minimum: number("minimum"),
            exclusive_minimum: schema["exclusiveMinimum"] == true,
            multiple_of: number("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: schema["pattern"].as_str().filter(|text| !text.is_empty()).map(str::to_owned),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            unique_items: schema["uniqueItems"] == true,
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: texts(&schema["required"]),
            r#enum: schema["enum"].as_array().cloned().unwrap_or_default(),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: schema.get("not").filter(|not| not.is_object()).map(|not| Box::new(Structural::read(not))),
        }
    }
}

impl ValidationRule {
    fn read(rule: &Value) -> Self {
        let text = |field: &str| rule[field].as_str().unwrap_or_default().to_owned();
        Self {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: rule["reason"].as_str().map(str::to_owned),
            field_path: text("fieldPath"),
            optional_old_self: rule["optionalOldSelf"].as_bool(),
        }
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
