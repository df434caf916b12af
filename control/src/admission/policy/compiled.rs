//! One policy, compiled: its conditions, variables, validations and audit annotations.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use serde_json::Value;

use crate::{
    cel::{
        self, Activation, EvalError, Program, Scope, Type, Value as Cel, compile,
        typing::{Decl, DeclType},
        value::Map,
    },
    kinds::FieldError,
};

/// A policy that can be evaluated.
#[derive(Debug)]
pub struct Compiled {
    /// `matchConstraints`
    pub constraints: Value,
    /// API version and kind of the parameters.
    pub param_kind: Option<(String, String)>,
    /// Whether an error of an expression is a violation.
    pub fails: bool,
    /// Why expressions could not be compiled.
    pub errors: Vec<FieldError>,
    conditions: Vec<Expression>,
    variables: Vec<(String, Expression)>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
}

/// A compiled expression, or why it is none.
#[derive(Debug)]
struct Expression {
    text: String,
    program: Result<Program, String>,
}

#[derive(Debug)]
struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
}

/// What expressions see.
#[derive(Clone, Copy)]
pub struct Input<'v> {
    pub object: &'v Value,
    pub old: &'v Value,
    pub request: &'v Value,
    pub namespace: &'v Value,
    pub params: &'v Value,
}

/// A validation that does not hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub message: String,
    /// `Invalid`, `Forbidden`, …; empty where the policy does not say.
    pub reason: String,
    /// Whether the expression had no value.
    pub is_error: bool,
}

/// The variables of a policy with their values, and why some have none.
struct Variables<'v> {
    values: Vec<(Cel<'v>, Cel<'v>)>,
    failed: Vec<(String, String)>,
}

/// What all conditions of a policy may cost. Source: `RuntimeCELCostBudgetMatchConditions`.
const CONDITIONS_BUDGET: u64 = 2_500_000;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";
/// The most bytes of a message that an expression makes.
const MAX_MESSAGE: usize = 5 * 1024;

impl Compiled {
    /// Compiles a stored policy.
    pub fn read(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let param_kind = spec["paramKind"].as_object().map(|kind| {
            let field = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            (field("apiVersion"), field("kind"))
        });
        let mut errors = Vec::new();
        let mut fields: BTreeMap<String, Arc<Decl>> = BTreeMap::new();
        let scope = |fields: &BTreeMap<String, Arc<Decl>>| {
            let all = DeclType::Object { name: "kubernetes.variables".to_owned(), fields: fields.clone() };
            let variables = Arc::new(Decl { r#type: all, max_elements: u64::MAX, min_size: 0 });
            let names = ["object", "oldObject", "request", "namespaceObject"];
            let scope = names.into_iter().fold(Scope::default(), |scope, name| scope.with(name, Type::Dyn));
            let scope = if param_kind.is_some() { scope.with("params", Type::Dyn) } else { scope };
            scope.declare("variables", &variables)
        };
        let list = |field: &str| spec[field].as_array().cloned().unwrap_or_default();
        let mut expression = |path: String, text: String, expected: Type, scope: &Scope| {
            let program = compile(&text, scope, &expected).map_err(|error| match error {
                cel::check::CompileError::Issues(issues) => format!("compilation failed: {issues}"),
                cel::check::CompileError::Result(_) => format!("must evaluate to {expected}"),
            });
            if let Err(why) = &program {
                errors.push(FieldError::invalid(path, &Value::from(text.as_str()), why));
            }
            Expression { text, program }
        };
        let without = scope(&fields);
        let mut conditions = Vec::new();
        let mut variables = Vec::new();
        for (at, variable) in list("variables").iter().enumerate() {
            // A variable may name those before it.
            let path = format!("spec.variables[{at}].expression");
            let found = expression(path, text(&variable["expression"]), Type::Dyn, &scope(&fields));
            let r#type = found.program.as_ref().map_or(Type::Dyn, |program| program.r#type.clone());
            let decl = Decl { r#type: DeclType::Scalar(r#type), max_elements: u64::MAX, min_size: 0 };
            fields.insert(text(&variable["name"]), Arc::new(decl));
            variables.push((text(&variable["name"]), found));
        }
        for (at, condition) in list("matchConditions").iter().enumerate() {
            let path = format!("spec.matchConditions[{at}].expression");
            conditions.push(expression(path, text(&condition["expression"]), Type::Bool, &without));
        }
        let with = scope(&fields);
        let validations = list("validations").into_iter().enumerate().map(|(at, validation)| {
            let path = format!("spec.validations[{at}]");
            let message_expression = text(&validation["messageExpression"]);
            Validation {
                expression: expression(
                    format!("{path}.expression"),
                    text(&validation["expression"]),
                    Type::Bool,
                    &with,
                ),
                message: text(&validation["message"]),
                message_expression: (!message_expression.is_empty())
                    .then(|| expression(format!("{path}.messageExpression"), message_expression, Type::String, &with)),
                reason: text(&validation["reason"]),
            }
        });
        let validations = validations.collect();
        let annotations = list("auditAnnotations").into_iter().enumerate().map(|(at, annotation)| {
            let path = format!("spec.auditAnnotations[{at}].valueExpression");
            (text(&annotation["key"]), expression(path, text(&annotation["valueExpression"]), Type::Dyn, &with))
        });
        let annotations = annotations.collect();
        Self {
            constraints: spec["matchConstraints"].clone(),
            fails: spec["failurePolicy"] != "Ignore",
            param_kind,
            conditions,
            variables,
            validations,
            annotations,
            errors,
        }
    }

    /// Every validation that does not hold; none where the conditions do not.
    pub fn violations(&self, input: &Input<'_>) -> Vec<Verdict> {
        let error = |message: String| match self.fails {
            true => vec![Verdict { message, reason: String::new(), is_error: true }],
            false => Vec::new(),
        };
        let mut budget = CONDITIONS_BUDGET;
        let plain = self.activation(input);
        let mut failure = None;
        for condition in &self.conditions {
            match evaluate(condition, &plain, &mut budget, &[]) {
                // One that does not hold decides, whatever fails beside it.
                Ok(Cel::Bool(false)) => return Vec::new(),
                Ok(_) => {}
                Err(why) => failure = failure.or(Some(why)),
            }
        }
        if let Some(why) = failure {
            return error(why);
        }
        let mut budget = cel::OBJECT_BUDGET;
        let variables = self.variables(input, &mut budget);
        let failed = variables.failed.clone();
        let activation = self.activation(input).with("variables", Cel::Map(Map::Made(Rc::new(variables.values))));
        let mut verdicts = Vec::new();
        for validation in &self.validations {
            match evaluate(&validation.expression, &activation, &mut budget, &failed) {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => {
                    let message = validation.message(&activation, &mut budget);
                    verdicts.push(Verdict { message, reason: validation.reason.clone(), is_error: false });
                }
                Err(why) => verdicts.extend(error(why)),
            }
        }
        verdicts
    }

    /// What is noted for audit: key, and value or why it has none.
    pub fn audit_annotations(&self, input: &Input<'_>) -> Vec<(&str, Result<String, String>)> {
        if self.annotations.is_empty() {
            return Vec::new();
        }
        let mut budget = cel::OBJECT_BUDGET;
        let variables = self.variables(input, &mut budget);
        let failed = variables.failed.clone();
        let activation = self.activation(input).with("variables", Cel::Map(Map::Made(Rc::new(variables.values))));
        let mut found = Vec::new();
        for (key, annotation) in &self.annotations {
            match evaluate(annotation, &activation, &mut budget, &failed) {
                Ok(Cel::String(text)) if !text.trim().is_empty() => {
                    found.push((key.as_str(), Ok(text.trim().to_owned())))
                }
                Ok(Cel::String(_) | Cel::Null) => {}
                Ok(other) => {
                    let why = format!(
                        "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either \
                        string or null.",
                        annotation.text,
                        other.type_name()
                    );
                    found.push((key.as_str(), Err(why)));
                }
                Err(why) => found.push((key.as_str(), Err(why))),
            }
        }
        found
    }

    fn activation<'v>(&self, input: &Input<'v>) -> Activation<'v> {
        let of = |data: &'v Value| Cel::of(data, None);
        Activation::default()
            .with("object", of(input.object))
            .with("oldObject", of(input.old))
            .with("request", of(input.request))
            .with("namespaceObject", of(input.namespace))
            .with("params", of(input.params))
    }

    fn variables<'v>(&self, input: &Input<'v>, budget: &mut u64) -> Variables<'v> {
        let mut all = Variables { values: Vec::new(), failed: Vec::new() };
        for (name, variable) in &self.variables {
            let so_far = Cel::Map(Map::Made(Rc::new(all.values.clone())));
            let activation = self.activation(input).with("variables", so_far);
            match evaluate(variable, &activation, budget, &all.failed) {
                Ok(value) => all.values.push((Cel::text(name.as_str()), value)),
                Err(why) => all.failed.push((name.clone(), why)),
            }
        }
        all
    }
}

impl Validation {
    fn message(&self, activation: &Activation<'_>, budget: &mut u64) -> String {
        let made = self.message_expression.as_ref().and_then(|expression| {
            match evaluate(expression, activation, budget, &[]) {
                Ok(Cel::String(text)) => Some(text.trim().to_owned()),
                _ => None,
            }
        });
        let fits = |text: &String| !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n');
        match (made.filter(fits), self.message.trim()) {
            (Some(made), _) => made,
            (None, "") => format!("failed expression: {}", self.expression.text.trim()),
            (None, own) => own.to_owned(),
        }
    }
}

/// The value of an expression; takes its cost off `budget`. `failed` are the variables without value: an expression
/// that needs one fails with its reason.
fn evaluate<'v>(
    expression: &Expression,
    activation: &Activation<'v>,
    budget: &mut u64,
    failed: &[(String, String)],
) -> Result<Cel<'v>, String> {
    let program = expression.program.as_ref().map_err(|why| format!("compilation error: {why}"))?;
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
        format!("expression '{}' resulted in error: {why}", expression.text)
    })
}
