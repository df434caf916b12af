//! What the expressions of a policy may name: its conditions come before, its variables beside them.

use std::rc::Rc;

use serde_json::Value;

use crate::{
    admission::expression::{Conditions, Expression, Input},
    cel::{Activation, Type, Value as Cel, value::Map},
    kinds::admissionregistration::scope::KnownNames,
};

/// What every policy declares, compiled.
pub struct Declared {
    /// `matchConditions`
    pub conditions: Conditions,
    /// `variables`
    pub variables: Variables,
    /// What its other expressions may name.
    pub known: KnownNames,
}

/// The variables of a policy, in their order: each may name those before it.
#[derive(Debug, Default)]
pub struct Variables {
    all: Vec<(String, Expression)>,
}

/// The values of variables, and why some have none.
pub struct VariableValues<'v> {
    /// Shared with every activation.
    values: Rc<Vec<(Cel<'v>, Cel<'v>)>>,
    /// Name and reason.
    pub failed: Vec<(String, String)>,
}

impl Declared {
    /// Compiles what a policy's `spec` declares.
    pub fn read(spec: &Value) -> Self {
        let mut known = KnownNames::of_policy(spec);
        let conditions = Conditions::compile(&spec["matchConditions"], &known.for_conditions());
        let mut variables = Variables::default();
        for variable in spec["variables"].as_array().into_iter().flatten() {
            let text = |field: &str| variable[field].as_str().unwrap_or_default();
            let found = Expression::compile(text("expression"), &Type::Dyn, &known.for_rules());
            known.declare(text("name"), found.program.as_ref().map_or(Type::Dyn, |program| program.r#type.clone()));
            variables.all.push((text("name").to_owned(), found));
        }
        Self { conditions, variables, known }
    }
}

impl Variables {
    /// Their values; what they cost is taken off `budget`.
    pub fn evaluate<'v>(&self, input: &Input<'v>, budget: &mut u64) -> VariableValues<'v> {
        let mut known = VariableValues { values: Rc::default(), failed: Vec::new() };
        for (name, variable) in &self.all {
            match variable.evaluate(&known.activation(input), budget, &known.failed) {
                Ok(value) => Rc::make_mut(&mut known.values).push((Cel::text(name.as_str()), value)),
                Err(error) => known.failed.push((name.clone(), error.to_string())),
            }
        }
        known
    }
}

impl<'v> VariableValues<'v> {
    /// What expressions see, these variables included.
    pub fn activation(&self, input: &Input<'v>) -> Activation<'v> {
        input.activation().with("variables", Cel::Map(Map::Made(self.values.clone())))
    }
}
