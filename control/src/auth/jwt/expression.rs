//! CEL expressions of an authentication configuration: about the claims of a token, or about a user.
//!
//! Source: `k8s.io/apiserver/pkg/authentication/cel`, whose words these are.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use serde_json::{Map, Number, Value, json};

use crate::{
    cel::{
        Activation, EvalError, Program, Scope, Type, Value as Cel,
        check::{CompileError, compile},
        declare::escape,
        typing::{Decl, DeclType},
    },
    identity::Identity,
};

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct ClaimExpression {
    text: String,
    program: Program,
}

/// Why an expression is none.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClaimExpressionError {
    /// With the places in the text.
    #[error("compilation failed: {0}")]
    Issues(String),
    /// Its value is of another type.
    #[error("must evaluate to {0}")]
    Result(Type),
}

/// An expression came to an error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("expression '{expression}' resulted in error: {error}")]
pub struct ClaimEvaluationError {
    expression: String,
    error: EvalError,
}

const CLAIMS: &str = "claims";
const USER: &str = "user";

static OF_CLAIMS: LazyLock<Scope> = LazyLock::new(|| Scope::default().with(CLAIMS, Type::map(Type::String, Type::Dyn)));
static OF_USER: LazyLock<Scope> = LazyLock::new(|| {
    let decl = |r#type: DeclType| Arc::new(Decl { r#type, max_elements: u64::MAX, min_size: 0 });
    let text = || decl(DeclType::Scalar(Type::String));
    let fields = BTreeMap::from([
        ("username".to_owned(), text()),
        ("uid".to_owned(), text()),
        ("groups".to_owned(), decl(DeclType::List(text()))),
        ("extra".to_owned(), decl(DeclType::Map(decl(DeclType::List(text()))))),
    ]);
    Scope::default().declare(USER, &decl(DeclType::Object { name: "kubernetes.UserInfo".to_owned(), fields }))
});

impl ClaimExpression {
    /// About `claims`; its value must be of the type `expected`.
    pub fn of_claims(text: &str, expected: &Type) -> Result<Self, ClaimExpressionError> {
        Self::compile(text, &OF_CLAIMS, expected)
    }

    /// About `user`; its value is true or false.
    pub fn of_user(text: &str) -> Result<Self, ClaimExpressionError> {
        Self::compile(text, &OF_USER, &Type::Bool)
    }

    fn compile(text: &str, scope: &Scope, expected: &Type) -> Result<Self, ClaimExpressionError> {
        let program = compile(text, scope, expected).map_err(|error| match error {
            CompileError::Issues(issues) => ClaimExpressionError::Issues(issues),
            CompileError::Result(_) => ClaimExpressionError::Result(expected.clone()),
        })?;
        Ok(Self { text: text.to_owned(), program })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it looks at this claim.
    pub fn names_claim(&self, claim: &str) -> bool {
        self.program.selects(CLAIMS, claim)
    }

    /// The value, at a bounded cost.
    pub fn evaluate<'v>(&self, activation: &Activation<'v>) -> Result<Cel<'v>, ClaimEvaluationError> {
        let evaluated = self.program.evaluate(activation);
        evaluated.value.map_err(|error| ClaimEvaluationError { expression: self.text.clone(), error })
    }
}

/// Claims as expressions see them: every number is a double, as Go reads JSON, and what cannot be written as a field
/// has its escaped name as well (`claims.a__dot__b`). A loop over all claims meets both names.
pub fn seen_claims(claims: &Map<String, Value>) -> Value {
    seen(&Value::Object(claims.clone()))
}

fn seen(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().and_then(Number::from_f64).map_or(Value::Null, Value::Number),
        Value::Array(items) => items.iter().map(seen).collect(),
        Value::Object(fields) => {
            let mut seen: Map<String, Value> = fields.iter().map(|(name, value)| (name.clone(), seen(value))).collect();
            for (name, value) in fields {
                if let Some(escaped) = escape(name).filter(|escaped| escaped != name && !fields.contains_key(escaped)) {
                    seen.insert(escaped, self::seen(value));
                }
            }
            Value::Object(seen)
        }
        other => other.clone(),
    }
}

/// The variable `claims`, of [`seen_claims`].
pub fn claims_activation(claims: &Value) -> Activation<'_> {
    Activation::default().with(CLAIMS, Cel::of(claims, None))
}

/// A user as expressions see them.
pub fn seen_user(identity: &Identity) -> Value {
    let user =
        json!({"username": identity.name, "uid": identity.uid, "groups": identity.groups, "extra": identity.extra});
    seen(&user)
}

/// The variable `user`, of [`seen_user`].
pub fn user_activation(user: &Value) -> Activation<'_> {
    Activation::default().with(USER, Cel::of(user, None))
}
