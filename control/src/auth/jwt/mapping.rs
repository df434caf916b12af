//! Whom a verified token names, and whether they are let in: the mappings and rules of one authenticator. Pure.
//!
//! Source: `oidc.go` of `k8s.io/apiserver/plugin/pkg/authenticator/token/oidc`, whose words these are. Distributed
//! claims (OpenID Connect Core 1.0, section 5.6.2) are not fetched: a token that has its groups elsewhere is refused,
//! as Kubernetes refuses one whose groups it cannot get.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::expression::{
    ClaimEvaluationError, ClaimExpression, ClaimExpressionError, claims_activation, seen_claims, seen_user,
    user_activation,
};
use crate::{
    auth::configuration::authentication::{ClaimMapping, JwtAuthenticatorConfiguration},
    cel::{Activation, Type, Value as Cel},
    identity::Identity,
    json_kind::json_kind,
};

/// The mappings and rules of an authenticator, compiled.
pub struct UserMapping {
    username: ClaimSource,
    groups: ClaimSource,
    uid: ClaimSource,
    extra: Vec<(String, ClaimExpression)>,
    required: BTreeMap<String, String>,
    claim_rules: Vec<(ClaimExpression, String)>,
    user_rules: Vec<(ClaimExpression, String)>,
}

enum ClaimSource {
    Nothing,
    Claim { name: String, prefix: String },
    Expression(ClaimExpression),
}

/// Why a verified token lets nobody in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UserMappingError {
    /// The claim of the name, or the uid, is not there or no text.
    #[error("oidc: parse {what} {claim:?}: {why}")]
    Claim {
        /// `username claims`
        what: &'static str,
        /// Its name.
        claim: String,
        /// What is wrong with it.
        why: ClaimError,
    },
    /// `email_verified` is no boolean.
    #[error("oidc: parse 'email_verified' claim: {0}")]
    EmailVerified(ClaimError),
    /// `email_verified` is false.
    #[error("oidc: email not verified")]
    EmailNotVerified,
    /// The name is empty.
    #[error("oidc: empty username via {0} is not allowed")]
    EmptyName(&'static str),
    /// An expression came to an error, or to no text.
    #[error("oidc: error evaluating {what} expression: {why}")]
    Evaluation {
        /// `username claim`
        what: &'static str,
        /// What it came to.
        why: MappedValueError,
    },
    /// Something that the token must claim is not there.
    #[error("oidc: required claim {0} not present in ID token")]
    Missing(String),
    /// It is no text.
    #[error("oidc: parse claim {claim}: {why}")]
    Required {
        /// Its name.
        claim: String,
        /// What it is.
        why: ClaimError,
    },
    /// It has another value.
    #[error("oidc: required claim {claim} value does not match. Got = {found}, want = {wanted}")]
    Mismatch {
        /// Its name.
        claim: String,
        /// Its value.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// A rule about `claims` fails.
    #[error("oidc: error evaluating claim validation expression: {0}")]
    ClaimRule(RuleError),
    /// A rule about `user` fails.
    #[error("oidc: error evaluating user info validation rule: {0}")]
    UserRule(RuleError),
    /// The groups are at another server.
    #[error("oidc: could not expand distributed claims: claim {0:?} is in _claim_names, which is not supported")]
    Distributed(String),
}

/// What is wrong with a claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// It is not there.
    #[error("claim not present")]
    Missing,
    /// It is of another type.
    #[error("json: cannot unmarshal {found} into Go value of type {expected}")]
    Type {
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// What is wrong with the value of an expression.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MappedValueError {
    /// It came to an error.
    #[error(transparent)]
    Evaluation(#[from] ClaimEvaluationError),
    /// It is no text.
    #[error("{0} claim expression must return a string")]
    NoText(&'static str),
    /// It is no text, and no list of texts.
    #[error("expression must return a string or a list of strings")]
    NoTexts,
}

/// Why a rule refuses a token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RuleError {
    /// It came to an error.
    #[error(transparent)]
    Evaluation(#[from] ClaimEvaluationError),
    /// It is no boolean.
    #[error("validation expression must return a boolean")]
    NoBoolean,
    /// It is false.
    #[error("validation expression '{expression}' failed: {message}")]
    False {
        /// As it was written.
        expression: String,
        /// What the configuration says of that.
        message: String,
    },
}

impl UserMapping {
    /// Compiles what a configuration says that holds together.
    pub fn compile(config: &JwtAuthenticatorConfiguration) -> Result<Self, ClaimExpressionError> {
        let source = |mapping: &ClaimMapping| {
            Ok(match (mapping.claim.is_empty(), mapping.expression.is_empty()) {
                (_, false) => ClaimSource::Expression(ClaimExpression::of_claims(&mapping.expression, &Type::Dyn)?),
                (false, true) => {
                    let prefix = mapping.prefix.clone().unwrap_or_default();
                    ClaimSource::Claim { name: mapping.claim.clone(), prefix }
                }
                (true, true) => ClaimSource::Nothing,
            })
        };
        let mappings = &config.claim_mappings;
        let (by_claim, by_expression): (Vec<_>, Vec<_>) =
            config.claim_validation_rules.iter().partition(|rule| !rule.claim.is_empty());
        let extra = mappings
            .extra
            .iter()
            .map(|extra| Ok((extra.key.clone(), ClaimExpression::of_claims(&extra.value_expression, &Type::Dyn)?)));
        let claim_rules = by_expression
            .into_iter()
            .map(|rule| Ok((ClaimExpression::of_claims(&rule.expression, &Type::Bool)?, rule.message.clone())));
        let user_rules = config
            .user_validation_rules
            .iter()
            .map(|rule| Ok((ClaimExpression::of_user(&rule.expression)?, rule.message.clone())));
        Ok(Self {
            username: source(&mappings.username)?,
            groups: source(&mappings.groups)?,
            uid: source(&mappings.uid)?,
            extra: extra.collect::<Result<_, _>>()?,
            required: by_claim.into_iter().map(|rule| (rule.claim.clone(), rule.required_value.clone())).collect(),
            claim_rules: claim_rules.collect::<Result<_, _>>()?,
            user_rules: user_rules.collect::<Result<_, _>>()?,
        })
    }

    /// The user, without the group of all users.
    pub fn user(&self, claims: &Map<String, Value>) -> Result<Identity, UserMappingError> {
        let seen = if self.sees_claims() { seen_claims(claims) } else { Value::Null };
        let activation = claims_activation(&seen);
        let mut user = Identity {
            name: self.name(claims, &activation)?,
            groups: self.groups(claims, &activation)?,
            uid: self.uid(claims, &activation)?,
            extra: self.extra(claims, &activation)?,
        };
        for (claim, wanted) in &self.required {
            let found = claims.get(claim).ok_or_else(|| UserMappingError::Missing(claim.clone()))?;
            let found = text(found).map_err(|why| UserMappingError::Required { claim: claim.clone(), why })?;
            if found != wanted {
                let (claim, found, wanted) = (claim.clone(), found.to_owned(), wanted.clone());
                return Err(UserMappingError::Mismatch { claim, found, wanted });
            }
        }
        hold(&self.claim_rules, &activation).map_err(UserMappingError::ClaimRule)?;
        if !self.user_rules.is_empty() {
            let seen = seen_user(&user);
            hold(&self.user_rules, &user_activation(&seen)).map_err(UserMappingError::UserRule)?;
        }
        user.groups.shrink_to_fit();
        Ok(user)
    }

    fn sees_claims(&self) -> bool {
        let by_expression =
            [&self.username, &self.groups, &self.uid].into_iter().any(|s| matches!(s, ClaimSource::Expression(_)));
        by_expression || !self.extra.is_empty() || !self.claim_rules.is_empty()
    }

    fn name(&self, claims: &Map<String, Value>, seen: &Activation<'_>) -> Result<String, UserMappingError> {
        let (name, prefix) = match &self.username {
            ClaimSource::Nothing => return Err(UserMappingError::EmptyName("claim")),
            ClaimSource::Expression(expression) => {
                let name = one_text(expression, seen, "username");
                let name = name.map_err(|why| UserMappingError::Evaluation { what: "username claim", why })?;
                return match name.is_empty() {
                    true => Err(UserMappingError::EmptyName("CEL expression")),
                    false => Ok(name),
                };
            }
            ClaimSource::Claim { name, prefix } => (name, prefix),
        };
        let wrong = |why| UserMappingError::Claim { what: "username claims", claim: name.clone(), why };
        let found = claims.get(name).ok_or_else(|| wrong(ClaimError::Missing))?;
        let found = text(found).map_err(wrong)?;
        if name == "email" {
            match claims.get("email_verified") {
                None | Some(Value::Bool(true)) => {}
                Some(Value::Bool(false) | Value::Null) => return Err(UserMappingError::EmailNotVerified),
                Some(other) => {
                    let why = ClaimError::Type { found: json_kind(other), expected: "bool" };
                    return Err(UserMappingError::EmailVerified(why));
                }
            }
        }
        // Kubernetes lets in a user without a name here.
        if found.is_empty() {
            return Err(UserMappingError::EmptyName("claim"));
        }
        Ok(format!("{prefix}{found}"))
    }

    fn groups(&self, claims: &Map<String, Value>, seen: &Activation<'_>) -> Result<Vec<String>, UserMappingError> {
        match &self.groups {
            ClaimSource::Nothing => Ok(Vec::new()),
            ClaimSource::Expression(expression) => {
                texts(expression, seen).map_err(|why| UserMappingError::Evaluation { what: "group claim", why })
            }
            ClaimSource::Claim { name, prefix } => {
                let Some(found) = claims.get(name) else {
                    let is_elsewhere = claims.get("_claim_names").is_some_and(|names| names.get(name).is_some());
                    return match is_elsewhere {
                        true => Err(UserMappingError::Distributed(name.clone())),
                        false => Ok(Vec::new()),
                    };
                };
                let wrong = |why| UserMappingError::Claim { what: "groups claim", claim: name.clone(), why };
                let groups = match found {
                    Value::Array(items) => items.iter().map(text).collect::<Result<Vec<_>, _>>().map_err(wrong)?,
                    Value::Null => Vec::new(),
                    one => vec![text(one).map_err(wrong)?],
                };
                Ok(groups.into_iter().map(|group| format!("{prefix}{group}")).collect())
            }
        }
    }

    fn uid(&self, claims: &Map<String, Value>, seen: &Activation<'_>) -> Result<String, UserMappingError> {
        match &self.uid {
            ClaimSource::Nothing => Ok(String::new()),
            ClaimSource::Expression(expression) => {
                one_text(expression, seen, "uid").map_err(|why| UserMappingError::Evaluation { what: "uid claim", why })
            }
            ClaimSource::Claim { name, .. } => {
                let found = claims.get(name).ok_or(ClaimError::Missing).and_then(text);
                let wrong = |why| UserMappingError::Claim { what: "uid claim", claim: name.clone(), why };
                found.map(str::to_owned).map_err(wrong)
            }
        }
    }

    fn extra(
        &self,
        claims: &Map<String, Value>,
        seen: &Activation<'_>,
    ) -> Result<BTreeMap<String, Vec<String>>, UserMappingError> {
        let mut extra = BTreeMap::new();
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={id}")]);
        }
        for (key, expression) in &self.extra {
            let values = texts(expression, seen);
            let values = values.map_err(|why| UserMappingError::Evaluation { what: "extra claim", why })?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        Ok(extra)
    }
}

/// A claim that is a text. A null is an empty one, as in Go.
fn text(value: &Value) -> Result<&str, ClaimError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null => Ok(""),
        other => Err(ClaimError::Type { found: json_kind(other), expected: "string" }),
    }
}

fn one_text(
    expression: &ClaimExpression,
    seen: &Activation<'_>,
    what: &'static str,
) -> Result<String, MappedValueError> {
    match expression.evaluate(seen)? {
        Cel::String(text) => Ok((*text).to_owned()),
        _ => Err(MappedValueError::NoText(what)),
    }
}

/// Of a text or a list of texts those that are not empty.
fn texts(expression: &ClaimExpression, seen: &Activation<'_>) -> Result<Vec<String>, MappedValueError> {
    let found: Vec<Cel<'_>> = match expression.evaluate(seen)? {
        Cel::Null => Vec::new(),
        Cel::List(list) => list.iter().collect(),
        one @ Cel::String(_) => vec![one],
        _ => return Err(MappedValueError::NoTexts),
    };
    let texts = found.into_iter().map(|value| match value {
        Cel::String(text) => Ok((*text).to_owned()),
        _ => Err(MappedValueError::NoTexts),
    });
    let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
    Ok(texts.into_iter().filter(|text| !text.is_empty()).collect())
}

/// Every rule is evaluated before one that is false is told of.
fn hold(rules: &[(ClaimExpression, String)], activation: &Activation<'_>) -> Result<(), RuleError> {
    let found = rules.iter().map(|(rule, message)| Ok((rule, message, rule.evaluate(activation)?)));
    for (rule, message, value) in found.collect::<Result<Vec<_>, RuleError>>()? {
        match value {
            Cel::Bool(true) => {}
            Cel::Bool(false) => {
                return Err(RuleError::False { expression: rule.text().to_owned(), message: message.clone() });
            }
            _ => return Err(RuleError::NoBoolean),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
