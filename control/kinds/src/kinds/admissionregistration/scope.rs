//! What the CEL expressions of webhooks and policies may name, and whether one can be evaluated. To evaluate them is
//! the part of `admission`.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::{
    cel::{
        self, Program, Scope, Type,
        check::{AUTHORIZER, CompileError},
        message::{JSON_PATCH, OBJECT},
        typing::{Decl, DeclType},
    },
    kinds::FieldError,
};

/// The names that the expressions of one webhook or policy know.
#[derive(Debug, Default)]
pub struct KnownNames {
    has_params: bool,
    has_variables: bool,
    fields: BTreeMap<String, Arc<Decl>>,
}

impl KnownNames {
    /// Those of the policy with this `spec`; its variables are declared one by one.
    pub fn of_policy(spec: &Value) -> Self {
        let has_variables = spec["variables"].as_array().is_some_and(|list| !list.is_empty());
        Self { has_params: spec["paramKind"].is_object(), has_variables, fields: BTreeMap::new() }
    }

    /// The next variable has this name and type.
    pub fn declare(&mut self, name: &str, r#type: Type) {
        let decl = Decl { r#type: DeclType::Scalar(r#type), max_elements: u64::MAX, min_size: 0 };
        self.fields.insert(name.to_owned(), Arc::new(decl));
    }

    /// What match conditions may name: no variables.
    pub fn for_conditions(&self) -> Scope {
        self.of_request().with("authorizer", Type::Opaque(AUTHORIZER))
    }

    /// What a message may name: what it says must not depend on who may do what.
    pub fn for_messages(&self) -> Scope {
        self.with_variables(self.of_request())
    }

    /// What all other expressions may name.
    pub fn for_rules(&self) -> Scope {
        self.with_variables(self.for_conditions())
    }

    /// What mutations may name, who make objects and patches beside that.
    pub fn for_mutations(&self) -> Scope {
        self.for_rules().with_patch_types()
    }

    fn of_request(&self) -> Scope {
        let objects = ["object", "oldObject", "request", "namespaceObject"];
        let params = self.has_params.then_some("params");
        objects.into_iter().chain(params).fold(Scope::default(), |scope, name| scope.with(name, Type::Dyn))
    }

    fn with_variables(&self, scope: Scope) -> Scope {
        if !self.has_variables {
            return scope;
        }
        let all = DeclType::Object { name: "kubernetes.variables".to_owned(), fields: self.fields.clone() };
        scope.declare("variables", &Arc::new(Decl { r#type: all, max_elements: u64::MAX, min_size: 0 }))
    }
}

/// The type of an apply configuration.
pub fn apply_configuration() -> Type {
    Type::Message(OBJECT.into())
}

/// The type of a JSON Patch.
pub fn json_patch() -> Type {
    Type::list(Type::Message(JSON_PATCH.into()))
}

/// Why an expression of a webhook or a policy cannot be evaluated. The words are those of Kubernetes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExpressionCompileError {
    /// With the places in the text.
    #[error("compilation failed: {0}")]
    Issues(String),
    /// Its value is of another type.
    #[error("must evaluate to {expected} but got {found}")]
    Result {
        /// The type that is wanted.
        expected: Type,
        /// The type that it has.
        found: Type,
    },
}

/// Compiles an expression whose value must be of the type `expected`.
pub fn compile(text: &str, scope: &Scope, expected: &Type) -> Result<Program, ExpressionCompileError> {
    cel::compile(text, scope, expected).map_err(|error| match error {
        CompileError::Issues(issues) => ExpressionCompileError::Issues(issues),
        CompileError::Result(found) => ExpressionCompileError::Result { expected: expected.clone(), found },
    })
}

/// Why an expression cannot be compiled, about the field `path`.
pub fn compile_error(path: &str, text: &str, scope: &Scope, expected: &Type) -> Option<FieldError> {
    compile(text, scope, expected).err().map(|why| FieldError::invalid(path, &text.into(), why.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_place_has_its_own_names() {
        let mut known = KnownNames::of_policy(&json!({"paramKind": {}, "variables": [{"name": "v"}]}));
        known.declare("v", Type::Bool);
        let knows = |text: &str, scope: Scope| compile(text, &scope, &Type::Dyn).is_ok();
        for (text, conditions, messages, rules) in [
            ("object.a", true, true, true),
            ("params.a", true, true, true),
            ("authorizer", true, false, true),
            ("variables.v", false, true, true),
            ("variables.w", false, false, false),
        ] {
            assert_eq!(knows(text, known.for_conditions()), conditions, "{text}");
            assert_eq!(knows(text, known.for_messages()), messages, "{text}");
            assert_eq!(knows(text, known.for_rules()), rules, "{text}");
        }
        assert!(knows("Object{a: variables.v}", known.for_mutations()) && !knows("Object{}", known.for_rules()));
        assert!(!knows("params", KnownNames::default().for_rules()), "no parameters");
        assert!(!knows("variables", KnownNames::default().for_rules()), "no variables");
    }
}
