//! One policy, compiled: its conditions, variables, validations and audit annotations.

use serde_json::Value;

use super::{
    target::PolicyTarget,
    variables::{Declared, Variables},
};
use crate::{
    admission::expression::{Conditions, ErrorType, Expression, ExpressionError, Input},
    cel::{self, Activation, Type, Value as Cel},
};

/// A policy that can be evaluated.
#[derive(Debug)]
pub struct Compiled {
    /// What it is about, and when it fails.
    pub target: PolicyTarget,
    conditions: Conditions,
    variables: Variables,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
}

#[derive(Debug)]
struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
}

/// A validation that does not hold.
#[derive(Debug, PartialEq, Eq)]
pub struct FailedValidation {
    /// Its place among the policy's; 0 where the conditions cannot be evaluated.
    pub index: usize,
    /// What the client is told.
    pub message: String,
    /// `Invalid`, `Forbidden`, …; empty where the policy does not say.
    pub reason: String,
    /// What kept it from being evaluated, if anything did: a failure policy decides.
    pub error: Option<ErrorType>,
}

/// What is noted for audit: key, and value or why it has none.
pub type Annotation<'p> = (&'p str, Result<String, AnnotationError>);

/// Why there is no value to note. The words are those of Kubernetes.
#[derive(Debug, thiserror::Error)]
pub enum AnnotationError {
    /// The expression has none.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// It is no text.
    #[error(
        "valueExpression '{expression}' resulted in unsupported return type: {found}. Return type must be either \
         string or null."
    )]
    Type {
        /// As it was written.
        expression: String,
        /// The type of its value.
        found: &'static str,
    },
}

impl AnnotationError {
    /// As metrics tell it.
    pub fn error_type(&self) -> ErrorType {
        match self {
            Self::Expression(error) => error.error_type(),
            Self::Type { .. } => ErrorType::Invalid,
        }
    }
}

/// The most bytes of a message that an expression makes.
const MAX_MESSAGE: usize = 5 * 1024;

impl Compiled {
    /// Compiles a stored policy.
    pub fn read(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let declared = Declared::read(spec);
        let (rules, messages) = (declared.known.for_rules(), declared.known.for_messages());
        let list = |field: &str| spec[field].as_array().cloned().unwrap_or_default();
        let validations = list("validations").into_iter().map(|validation| {
            let message_expression = text(&validation["messageExpression"]);
            Validation {
                expression: Expression::compile(&text(&validation["expression"]), &Type::Bool, &rules),
                message: text(&validation["message"]),
                message_expression: (!message_expression.is_empty())
                    .then(|| Expression::compile(&message_expression, &Type::String, &messages)),
                reason: text(&validation["reason"]),
            }
        });
        let validations = validations.collect();
        let annotations = list("auditAnnotations").into_iter().map(|annotation| {
            let written = text(&annotation["valueExpression"]);
            (text(&annotation["key"]), Expression::compile(&written, &Type::Dyn, &rules))
        });
        let annotations = annotations.collect();
        Self {
            target: PolicyTarget::read(spec),
            conditions: declared.conditions,
            variables: declared.variables,
            validations,
            annotations,
        }
    }

    /// Every validation that does not hold, and what is noted for audit. Neither where the conditions do not hold.
    pub fn evaluate(&self, input: &Input<'_>) -> (Vec<FailedValidation>, Vec<Annotation<'_>>) {
        match self.conditions.hold(&input.activation()) {
            Ok(true) => {}
            Ok(false) => return (Vec::new(), Vec::new()),
            Err(error) => {
                return (vec![FailedValidation::of_error(0, error.to_string(), error.error_type())], Vec::new());
            }
        }
        let mut budget = cel::OBJECT_BUDGET;
        let known = self.variables.evaluate(input, &mut budget);
        let activation = known.activation(input);
        let mut verdicts = Vec::new();
        for (index, validation) in self.validations.iter().enumerate() {
            match validation.expression.evaluate(&activation, &mut budget, &known.failed) {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => {
                    let message = validation.message(&activation, &mut budget);
                    verdicts.push(FailedValidation { index, message, reason: validation.reason.clone(), error: None });
                }
                Err(error) => verdicts.push(FailedValidation::of_error(index, error.to_string(), error.error_type())),
            }
        }
        let mut annotations = Vec::new();
        for (key, annotation) in &self.annotations {
            let value = annotation.evaluate(&activation, &mut budget, &known.failed);
            annotations.extend(noted(annotation, value).map(|value| (key.as_str(), value)));
        }
        (verdicts, annotations)
    }
}

impl FailedValidation {
    fn of_error(index: usize, message: String, error: ErrorType) -> Self {
        Self { index, message, reason: String::new(), error: Some(error) }
    }

    /// What metrics tell of it: the type of its error, or that there is none and it does not hold.
    pub fn error_type(&self) -> &'static str {
        self.error.map_or(NO_ERROR, ErrorType::as_str)
    }
}

/// No error: an expression that does not hold.
pub const NO_ERROR: &str = "no_error";

/// The value of an audit annotation; nothing where there is nothing to note.
fn noted(annotation: &Expression, value: Result<Cel<'_>, ExpressionError>) -> Option<Result<String, AnnotationError>> {
    match value {
        Ok(Cel::String(text)) => {
            let text = text.trim();
            (!text.is_empty()).then(|| Ok(text.to_owned()))
        }
        Ok(Cel::Null) => None,
        Ok(other) => {
            let (expression, found) = (annotation.text.clone(), other.type_name());
            Some(Err(AnnotationError::Type { expression, found }))
        }
        Err(error) => Some(Err(error.into())),
    }
}

impl Validation {
    fn message(&self, activation: &Activation<'_>, budget: &mut u64) -> String {
        let made = self.message_expression.as_ref().and_then(|expression| {
            match expression.evaluate(activation, budget, &[]) {
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
