//! Objects that an expression makes: `Object.spec{replicas: 3}`, `JSONPatch{op: "add", path: "/a"}`. Mutating policies
//! say with them what they change.
//!
//! Of `Object` and what is below it, any field may be named when an expression is compiled: whether the kind has it,
//! and whether the names of nested objects fit their fields, shows when it is evaluated.
//!
//! Source: `k8s.io/apiserver/pkg/cel/mutation`.

use std::rc::Rc;

use super::{
    eval::{Answer, EvalError, failure},
    typing::Type,
    value::Value,
};

/// The type of what an apply configuration comes to.
pub const OBJECT: &str = "Object";
/// The type of one operation of a JSON Patch.
pub const JSON_PATCH: &str = "JSONPatch";

/// An object with fields.
#[derive(Clone)]
pub struct Message<'v> {
    name: Rc<str>,
    fields: Rc<[(Rc<str>, Value<'v>)]>,
}

/// Whether there is a type of this name.
pub fn is_type(name: &str) -> bool {
    name == JSON_PATCH || name == OBJECT || below_object(name).is_some()
}

fn below_object(name: &str) -> Option<&str> {
    name.strip_prefix(OBJECT)?.strip_prefix('.')
}

/// The type of a field; nothing where the type has none of this name.
pub fn field_type(of: &str, field: &str) -> Option<Type> {
    match (of, field) {
        (JSON_PATCH, "op" | "path" | "from") => Some(Type::String),
        (JSON_PATCH, "value") => Some(Type::Dyn),
        (JSON_PATCH, _) => None,
        _ => Some(Type::Dyn),
    }
}

impl<'v> Message<'v> {
    /// Of the type `name`. Of what was not known when the expression was compiled, the types are looked at here.
    pub fn new(name: &str, fields: Vec<(Rc<str>, Value<'v>)>) -> Result<Self, EvalError> {
        for (field, value) in &fields {
            if matches!(field_type(name, field), Some(Type::String)) && !matches!(value, Value::String(_)) {
                let found = value.type_name();
                return Err(failure(format!("unexpected type {found} for JSONPatchType '{field}' field")));
            }
        }
        Ok(Self { name: name.into(), fields: fields.into() })
    }

    /// The name of its type.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its fields, in the order in which they were written.
    pub fn fields(&self) -> &[(Rc<str>, Value<'v>)] {
        &self.fields
    }

    /// The value of a field that was set.
    pub fn get(&self, field: &str) -> Option<&Value<'v>> {
        self.fields.iter().find(|(known, _)| **known == *field).map(|(_, value)| value)
    }

    /// `message.field`: only operations of a JSON Patch can be read again.
    pub fn select(&self, field: &str) -> Answer<'v> {
        match (&*self.name, self.get(field)) {
            (JSON_PATCH, Some(found)) => Ok(found.clone()),
            (JSON_PATCH, None) if field != "value" => Ok(Value::text("")),
            (JSON_PATCH, None) => Err(EvalError::NoSuchKey(field.to_owned())),
            _ => Err(EvalError::NoOverload),
        }
    }

    /// `has(message.field)`
    pub fn has(&self, field: &str) -> Answer<'v> {
        match &*self.name {
            JSON_PATCH => Ok(Value::Bool(match self.get(field) {
                Some(Value::String(text)) if field != "value" => !text.is_empty(),
                found => found.is_some(),
            })),
            _ => Err(EvalError::NoOverload),
        }
    }

    /// The types within it whose names are not the path of the fields that lead to them, as Kubernetes tells them:
    /// `Object{spec: Object.status{}}`. To be asked of what [`super::json::to_json`] has found small enough.
    pub fn misnamed(&self) -> Vec<String> {
        let mut errors = Vec::new();
        self.check_names(&self.name, &mut errors);
        errors
    }

    fn check_names(&self, path: &str, errors: &mut Vec<String>) {
        // Parts of a value can be shared: there may be any number of them.
        if errors.len() >= MOST_ERRORS {
            return;
        }
        if *self.name != *path {
            errors.push(format!(
                "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
                self.name
            ));
        }
        for (field, value) in &*self.fields {
            check_names_in(value, &format!("{path}.{field}"), errors);
        }
    }
}

/// So many wrong names are told at most.
const MOST_ERRORS: usize = 10;

/// Lists and maps have no names of their own.
fn check_names_in(value: &Value<'_>, path: &str, errors: &mut Vec<String>) {
    use super::{list::List, value::Map};
    match value {
        Value::Message(message) => message.check_names(path, errors),
        Value::List(List::Data(..)) | Value::Map(Map::Data(..)) => {}
        Value::List(list) => list.iter().for_each(|item| check_names_in(&item, path, errors)),
        Value::Map(map) => map.entries().iter().for_each(|(_, item)| check_names_in(item, path, errors)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cel::{Activation, Scope, compile};

    fn scope() -> Scope {
        Scope::default().with("object", Type::Dyn).with_patch_types()
    }

    /// What an expression is, as text; or why it is nothing.
    fn shown(text: &str) -> String {
        let data = json!({"name": "web", "ports": [1, 2]});
        let activation = Activation::default().with("object", Value::of(&data, None));
        match compile(text, &scope(), &Type::Dyn) {
            Err(error) => error.to_string(),
            Ok(program) => match program.evaluate(&activation).value {
                Ok(value) => format!("{value:?}"),
                Err(error) => format!("error: {error}"),
            },
        }
    }

    #[test]
    fn objects_are_made_with_their_fields() {
        for (text, expected) in [
            (
                "Object{spec: Object.spec{a: 1, ?b: optional.none(), ?c: optional.of(2)}}",
                r#"Object{"spec": Object.spec{"a": 1, "c": 2}}"#,
            ),
            ("JSONPatch{op: 'add', path: '/' + object.name}.path", r#""/web""#),
            ("JSONPatch{op: 'add'}.from", r#""""#),
            ("has(JSONPatch{op: 'add'}.op) && !has(JSONPatch{op: 'add'}.value)", "true"),
            ("Object{a: 1} == Object{a: 1}", "true"),
            ("dyn(Object.a{}) == dyn(Object.b{})", "false"),
            ("Object{a: 1}.a", "error: no such overload"),
            ("JSONPatch{op: object.ports}", "error: unexpected type list for JSONPatchType 'op' field"),
            ("optional.ofNonZeroValue(Object{}).hasValue()", "false"),
            ("jsonpatch.escapeKey('example.com/a~b')", r#""example.com~1a~0b""#),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn types_and_fields_are_checked() {
        for (text, expected) in [
            ("Objects{}", "undeclared reference to 'Objects' (in container '')"),
            ("Object{a: none}", "undeclared reference to 'none' (in container '')"),
            ("JSONPatch{op: 1}", "expected type of field 'op' is 'string' but provided type is 'int'"),
            ("JSONPatch{opp: 'add'}", "undefined field 'opp'"),
            ("[JSONPatch{}, Object{}]", "expected type 'JSONPatch' but found 'Object'"),
        ] {
            assert!(shown(text).contains(expected), "{text}: {}", shown(text));
        }
        let of = |text: &str, expected: &Type| compile(text, &scope(), expected).map_err(|error| error.to_string());
        let patches = Type::list(Type::Message(JSON_PATCH.into()));
        assert!(of("object.a ? [JSONPatch{op: 'add'}] : []", &patches).is_ok());
        assert_eq!(of("[Object{}]", &patches).unwrap_err(), "the expression is of type list(Object)");
        assert!(of("Object.spec{}", &Type::Message(OBJECT.into())).is_err());
        let plain = Scope::default().with("object", Type::Dyn);
        for text in ["Object{}", "JSONPatch{}", "jsonpatch.escapeKey('a')"] {
            assert!(compile(text, &plain, &Type::Dyn).is_err(), "{text} is for mutations alone");
        }
    }

    #[test]
    fn names_of_types_are_the_paths_of_fields() {
        let errors = |text: &str| {
            let program = compile(text, &scope(), &Type::Dyn).unwrap();
            let Ok(Value::Message(message)) = program.evaluate(&Activation::default()).value else { panic!("{text}") };
            message.misnamed()
        };
        assert!(
            errors("Object{spec: Object.spec{list: [Object.spec.list{a: 1}], map: {'k': Object.spec.map{}}}}")
                .is_empty()
        );
        assert!(errors("Object.spec{list: [Object.spec.list{}]}").is_empty(), "it begins with itself");
        assert_eq!(
            errors("Object{spec: Object.status{}}"),
            [
                r#"unexpected type name "Object.status", expected "Object.spec", which matches field name path from root Object type"#
            ]
        );
        assert_eq!(errors("Object{spec: Object.spec{list: [Object.spec.other{}]}}").len(), 1);
    }

    #[test]
    fn an_object_costs_what_it_costs_in_kubernetes() {
        let program = compile("Object{spec: Object.spec{}}", &scope(), &Type::Dyn).unwrap();
        assert_eq!(program.evaluate(&Activation::default()).cost, 80);
        assert_eq!(program.max_cost, 80);
    }
}
