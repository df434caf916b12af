//! CEL expressions of webhooks and policies: compiled once, evaluated against a request at a bounded cost.

use serde_json::Value;

use crate::{
    cel::{Activation, EvalError, Program, Scope, Type, Value as Cel},
    kinds::admissionregistration::scope::compile,
};

/// A compiled expression, or why it is none.
#[derive(Debug)]
pub struct Expression {
    /// As it was written.
    pub text: String,
    /// What is evaluated.
    pub program: Result<Program, String>,
}

/// Conditions that a request must meet: `matchConditions`.
#[derive(Debug, Default)]
pub struct Conditions {
    all: Vec<Expression>,
}

/// What expressions see.
#[derive(Clone, Copy)]
pub struct Input<'v> {
    /// Null on deletion.
    pub object: &'v Value,
    /// Null on creation.
    pub old: &'v Value,
    /// An AdmissionRequest without objects.
    pub request: &'v Value,
    /// Null for what has no namespace.
    pub namespace: &'v Value,
    /// Null where there are none.
    pub params: &'v Value,
    /// The variable `authorizer`.
    pub authorizer: &'v Cel<'v>,
}

/// What all conditions may cost. Source: `RuntimeCELCostBudgetMatchConditions`.
const CONDITIONS_BUDGET: u64 = 2_500_000;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl Expression {
    /// Compiles a text whose value must be of the type `expected`.
    pub fn compile(text: &str, expected: &Type, scope: &Scope) -> Self {
        Self { text: text.to_owned(), program: compile(text, scope, expected) }
    }

    /// The value; takes its cost off `budget`. `failed` are the variables without value: an expression that needs one
    /// fails with its reason.
    pub fn evaluate<'v>(
        &self,
        activation: &Activation<'v>,
        budget: &mut u64,
        failed: &[(String, String)],
    ) -> Result<Cel<'v>, String> {
        let program = self.program.as_ref().map_err(|why| format!("compilation error: {why}"))?;
        if *budget == 0 {
            return Err(OUT_OF_BUDGET.to_owned());
        }
        let evaluated = program.evaluate(activation);
        match budget.checked_sub(evaluated.cost) {
            Some(left) => *budget = left,
            None => {
                *budget = 0;
                return Err(OUT_OF_BUDGET.to_owned());
            }
        }
        evaluated.value.map_err(|error| {
            let missing = |(name, _): &&(String, String)| error == EvalError::Message(format!("no such key: {name}"));
            let why = match failed.iter().find(missing) {
                Some((name, why)) => format!("composited variable {name:?} fails to evaluate: {why}"),
                None => error.to_string(),
            };
            format!("expression '{}' resulted in error: {why}", self.text)
        })
    }
}

impl Conditions {
    /// Compiles `matchConditions`.
    pub fn compile(conditions: &Value, scope: &Scope) -> Self {
        let one = |condition: &Value| {
            let text = condition["expression"].as_str().unwrap_or_default();
            Expression::compile(text, &Type::Bool, scope)
        };
        Self { all: conditions.as_array().into_iter().flatten().map(one).collect() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether the request meets them all; else why that cannot be told. One that is false decides, whatever fails
    /// beside it.
    pub fn hold(&self, activation: &Activation<'_>) -> Result<bool, String> {
        let mut budget = CONDITIONS_BUDGET;
        let mut failures = Vec::new();
        for condition in &self.all {
            match condition.evaluate(activation, &mut budget, &[]) {
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(why) => failures.push(why),
            }
        }
        match failures.len() {
            0 => Ok(true),
            1 => Err(failures.remove(0)),
            _ => Err(format!("[{}]", failures.join(", "))),
        }
    }
}

impl<'v> Input<'v> {
    /// The values of the variables.
    pub fn activation(&self) -> Activation<'v> {
        let of = |data: &'v Value| Cel::of(data, None);
        Activation::default()
            .with("object", of(self.object))
            .with("oldObject", of(self.old))
            .with("request", of(self.request))
            .with("namespaceObject", of(self.namespace))
            .with("params", of(self.params))
            .with("authorizer", self.authorizer.clone())
    }
}
