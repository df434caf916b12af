//! CEL expressions of webhooks and policies: compiled once, evaluated against a request at a bounded cost.

use std::fmt;

use serde_json::Value;

use crate::{
    cel::{Activation, EvalError, Program, Scope, Type, Value as Cel},
    kinds::admissionregistration::scope::{ExpressionCompileError, compile},
};

/// A compiled expression, or why it is none.
#[derive(Debug)]
pub struct Expression {
    /// As it was written.
    pub text: String,
    /// What is evaluated.
    pub program: Result<Program, ExpressionCompileError>,
}

/// Why an expression has no value. The words are those of Kubernetes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExpressionError {
    /// It is none.
    #[error("compilation error: {0}")]
    Compilation(ExpressionCompileError),
    /// All that its expressions may cost is spent.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    OutOfBudget,
    /// It came to an error.
    #[error("expression '{expression}' resulted in error: {error}")]
    Evaluation {
        /// As it was written.
        expression: String,
        /// What it came to.
        error: EvalError,
    },
    /// It needs a variable that has no value.
    #[error("expression '{expression}' resulted in error: composited variable {name:?} fails to evaluate: {why}")]
    Variable {
        /// As it was written.
        expression: String,
        /// Of the variable.
        name: String,
        /// Why the variable has none, as text: variables that name one another may be more than a stack is deep.
        why: String,
    },
}

/// Why conditions cannot be told to hold: one reason at least.
#[derive(Clone, Debug)]
pub struct ConditionsError(Vec<ExpressionError>);

/// What kind of error kept something from being evaluated, as metrics tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// `compile_error`
    Compile,
    /// `out_of_budget`
    OutOfBudget,
    /// `invalid_error`: everything else.
    Invalid,
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

impl ErrorType {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compile => "compile_error",
            Self::OutOfBudget => "out_of_budget",
            Self::Invalid => "invalid_error",
        }
    }
}

impl ExpressionError {
    /// As metrics tell it.
    pub fn error_type(&self) -> ErrorType {
        match self {
            Self::Compilation(_) => ErrorType::Compile,
            Self::OutOfBudget => ErrorType::OutOfBudget,
            Self::Evaluation { .. } | Self::Variable { .. } => ErrorType::Invalid,
        }
    }
}

impl ConditionsError {
    /// As metrics tell it. Several errors are of no type that Kubernetes knows.
    pub fn error_type(&self) -> ErrorType {
        match self.0.as_slice() {
            [only] => only.error_type(),
            _ => ErrorType::Invalid,
        }
    }
}

impl fmt::Display for ConditionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => only.fmt(f),
            all => write!(f, "[{}]", all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

impl std::error::Error for ConditionsError {}

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
    ) -> Result<Cel<'v>, ExpressionError> {
        let program = self.program.as_ref().map_err(|error| ExpressionError::Compilation(error.clone()))?;
        if *budget == 0 {
            return Err(ExpressionError::OutOfBudget);
        }
        let evaluated = program.evaluate(activation);
        match budget.checked_sub(evaluated.cost) {
            Some(left) => *budget = left,
            None => {
                *budget = 0;
                return Err(ExpressionError::OutOfBudget);
            }
        }
        evaluated.value.map_err(|error| {
            let expression = self.text.clone();
            let missing = match &error {
                EvalError::NoSuchKey(key) => failed.iter().find(|(name, _)| name == key),
                _ => None,
            };
            match missing {
                Some((name, why)) => ExpressionError::Variable { expression, name: name.clone(), why: why.clone() },
                None => ExpressionError::Evaluation { expression, error },
            }
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

    /// Whether the request meets them all. One that is false decides, whatever fails beside it.
    pub fn hold(&self, activation: &Activation<'_>) -> Result<bool, ConditionsError> {
        let mut budget = CONDITIONS_BUDGET;
        let mut failures = Vec::new();
        for condition in &self.all {
            match condition.evaluate(activation, &mut budget, &[]) {
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(error) => failures.push(error),
            }
        }
        if failures.is_empty() { Ok(true) } else { Err(ConditionsError(failures)) }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_has_the_type_that_metrics_know_and_the_words_of_kubernetes() {
        let scope = Scope::default().with("variables", Type::Dyn);
        let none = json!({});
        let activation = Activation::default().with("variables", Cel::of(&none, None));
        let failed = [("a".to_owned(), "why".to_owned())];
        let told = |text: &str, mut budget: u64| {
            let expression = Expression::compile(text, &Type::Dyn, &scope);
            let error = expression.evaluate(&activation, &mut budget, &failed).unwrap_err();
            (error.error_type().as_str(), error.to_string())
        };
        let (kind, words) = told("nothing", 10);
        assert!(kind == "compile_error" && words.starts_with("compilation error: compilation failed: "), "{words}");
        let spent = "validation failed due to running out of cost budget, no further validation rules will be run";
        for (text, budget) in [("1 / 0", 0), ("[1] == [1]", 1)] {
            assert_eq!(told(text, budget), ("out_of_budget", spent.to_owned()));
        }
        let invalid = |words: &str| ("invalid_error", words.to_owned());
        assert_eq!(told("1 / 0", 10), invalid("expression '1 / 0' resulted in error: division by zero"));
        assert_eq!(told("variables.b", 10), invalid("expression 'variables.b' resulted in error: no such key: b"));
        assert_eq!(
            told("variables.a", 10),
            invalid("expression 'variables.a' resulted in error: composited variable \"a\" fails to evaluate: why")
        );
    }

    #[test]
    fn conditions_that_fail_together_are_told_together() {
        let failing = |conditions: Value| {
            let all = Conditions::compile(&conditions, &Scope::default());
            let error = all.hold(&Activation::default()).unwrap_err();
            (error.error_type().as_str(), error.to_string())
        };
        let (broken, zero) = (json!({"expression": "nothing"}), json!({"expression": "1 / 0 == 1"}));
        let of_zero = "expression '1 / 0 == 1' resulted in error: division by zero";
        assert_eq!(failing(json!([zero])), ("invalid_error", of_zero.to_owned()));
        assert_eq!(failing(json!([broken])).0, "compile_error");
        assert_eq!(failing(json!([zero, zero])), ("invalid_error", format!("[{of_zero}, {of_zero}]")));
        assert_eq!(failing(json!([broken, broken])).0, "invalid_error");
    }
}
