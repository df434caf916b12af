//! What the expressions of a policy may name: its conditions come before, its variables beside them.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use serde_json::Value;

use crate::{
    admission::expression::{Conditions, Expression, Input, scope},
    cel::{
        Activation, Scope, Type, Value as Cel,
        typing::{Decl, DeclType},
        value::Map,
    },
    kinds::FieldError,
};

/// What every policy declares, compiled.
pub struct Declared {
    /// API version and kind of the parameters.
    pub param_kind: Option<(String, String)>,
    /// `matchConditions`
    pub conditions: Conditions,
    /// `variables`
    pub variables: Variables,
    fields: BTreeMap<String, Arc<Decl>>,
}

/// The variables of a policy, in their order: each may name those before it.
#[derive(Debug, Default)]
pub struct Variables {
    all: Vec<(String, Expression)>,
}

/// The values of variables, and why some have none.
pub struct Known<'v> {
    values: Vec<(Cel<'v>, Cel<'v>)>,
    /// Name and reason.
    pub failed: Vec<(String, String)>,
}

impl Declared {
    /// Compiles what a policy's `spec` declares.
    pub fn read(spec: &Value, errors: &mut Vec<FieldError>) -> Self {
        let param_kind = spec["paramKind"].as_object().map(|kind| {
            let field = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            (field("apiVersion"), field("kind"))
        });
        let mut declared = Self {
            param_kind,
            conditions: Conditions::default(),
            variables: Variables::default(),
            fields: BTreeMap::new(),
        };
        let without = declared.scope();
        for (at, variable) in spec["variables"].as_array().into_iter().flatten().enumerate() {
            let text = |field: &str| variable[field].as_str().unwrap_or_default();
            let path = format!("spec.variables[{at}].expression");
            let found = Expression::compile(&path, text("expression"), &Type::Dyn, &declared.scope(), errors);
            let r#type = found.program.as_ref().map_or(Type::Dyn, |program| program.r#type.clone());
            let decl = Decl { r#type: DeclType::Scalar(r#type), max_elements: u64::MAX, min_size: 0 };
            declared.fields.insert(text("name").to_owned(), Arc::new(decl));
            declared.variables.all.push((text("name").to_owned(), found));
        }
        declared.conditions = Conditions::compile("spec.matchConditions", &spec["matchConditions"], &without, errors);
        declared
    }

    /// The variables of the policy's other expressions.
    pub fn scope(&self) -> Scope {
        let all = DeclType::Object { name: "kubernetes.variables".to_owned(), fields: self.fields.clone() };
        let variables = Arc::new(Decl { r#type: all, max_elements: u64::MAX, min_size: 0 });
        let scope = scope();
        let scope = if self.param_kind.is_some() { scope.with("params", Type::Dyn) } else { scope };
        scope.declare("variables", &variables)
    }
}

impl Variables {
    /// Their values; what they cost is taken off `budget`.
    pub fn evaluate<'v>(&self, input: &Input<'v>, budget: &mut u64) -> Known<'v> {
        let mut known = Known { values: Vec::new(), failed: Vec::new() };
        for (name, variable) in &self.all {
            match variable.evaluate(&known.activation(input), budget, &known.failed) {
                Ok(value) => known.values.push((Cel::text(name.as_str()), value)),
                Err(why) => known.failed.push((name.clone(), why)),
            }
        }
        known
    }
}

impl<'v> Known<'v> {
    /// What expressions see, these variables included.
    pub fn activation(&self, input: &Input<'v>) -> Activation<'v> {
        input.activation().with("variables", Cel::Map(Map::Made(Rc::new(self.values.clone()))))
    }
}
