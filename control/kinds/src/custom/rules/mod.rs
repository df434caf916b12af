//! `x-kubernetes-validations`: rules in CEL within a schema. They are checked when a definition is written
//! ([`RuleScope::check_rules`]), and evaluated when an object is ([`Rules::validate`]).

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value as Json, json};

use super::{
    structural::{Additional, Structural, ValidationRule, field_path},
    validate::correlate::OldItems,
};
use crate::{
    cel::{
        self, Activation, MAX_REQUEST, Program, RULE_LIMIT, SCHEMA_LIMIT, Scope, Type, Value,
        check::CompileError,
        declare::{declare, escape},
        typing::Decl,
    },
    kinds::FieldError,
};

mod evaluate;

/// What rules at one place of a schema may name: `self` and `oldSelf`.
#[derive(Clone, Debug)]
pub struct RuleScope {
    decl: Arc<Decl>,
    /// How many values the place has at most in one object; `None` if nothing bounds it.
    most: Option<u64>,
}

/// The rules of a schema, compiled. Each node of the schema that has any, or has any below it, is one of these.
#[derive(Debug, Default)]
pub struct Rules {
    schema: Structural,
    rules: Vec<Compiled>,
    items: Option<Box<Rules>>,
    properties: BTreeMap<String, Rules>,
    values: Option<Box<Rules>>,
}

#[derive(Debug)]
struct Compiled {
    rule: ValidationRule,
    /// What a stored rule cannot be compiled for: it was, when it was written.
    program: Result<Program, RuleError>,
    message: Option<Program>,
    /// Relative path of the errors: `spec.a`.
    field_path: String,
    uses_old: bool,
}

/// Why a rule, or the expression that makes its message, cannot be evaluated. The words are those of Kubernetes.
#[derive(Clone, Debug, thiserror::Error)]
enum RuleError {
    /// The rule, with the places in its text.
    #[error("compilation failed: {0}")]
    Issues(String),
    /// The rule is neither true nor false.
    #[error("cel expression must evaluate to a bool")]
    NotBool,
    /// The message expression, with the places in its text.
    #[error("messageExpression compilation failed: {0}")]
    MessageIssues(String),
    /// The message is no text.
    #[error("messageExpression must evaluate to a string")]
    MessageNotString,
}

/// What all rules of a schema may cost, with the rules that cost most.
#[derive(Debug, Default)]
pub struct Budget {
    total: u64,
    /// Cost and path.
    most: Vec<(u64, String)>,
}

impl RuleScope {
    /// Of a whole object.
    pub fn root(schema: &Structural) -> Option<Self> {
        Self::of(schema, true)
    }

    /// Of values with this schema, wherever they stand.
    pub fn of(schema: &Structural, is_resource: bool) -> Option<Self> {
        declare(schema, is_resource, "self").map(|decl| Self { decl, most: Some(1) })
    }

    /// Of a field of the values here.
    pub fn property(&self, name: &str, property: &Structural) -> Option<Self> {
        let decl = match escape(name) {
            Some(escaped) => self.decl.field(&escaped).cloned(),
            None => declare(property, property.embedded, "self"),
        };
        decl.map(|decl| Self { decl, most: self.most })
    }

    /// Of the values of a map.
    pub fn values(&self, schema: &Structural, _values: &Structural) -> Option<Self> {
        self.element(schema.checks.max_properties)
    }

    /// Of the items of a list.
    pub fn items(&self, schema: &Structural, _items: &Structural) -> Option<Self> {
        self.element(schema.checks.max_items)
    }

    fn element(&self, most: Option<i64>) -> Option<Self> {
        let most = most.map(|most| u64::try_from(most).unwrap_or(0));
        let most = self.most.zip(most).map(|(outer, most)| outer.saturating_mul(most));
        self.decl.element().map(|decl| Self { decl: decl.clone(), most })
    }

    /// The most that a rule here may cost in one object, where one evaluation costs `cost`.
    fn cost_of_all(&self, cost: u64) -> u64 {
        let most = self.most.unwrap_or(MAX_REQUEST / self.decl.min_size.saturating_add(1));
        cost.saturating_mul(most)
    }

    fn scope(&self, rule: &ValidationRule) -> Scope {
        let old = self.decl.cel_type();
        let scope = Scope::default().declare("self", &self.decl);
        match rule.optional_old_self {
            Some(true) => scope.with("oldSelf", Type::Optional(Box::new(old))),
            _ => scope.declare("oldSelf", &self.decl),
        }
    }

    /// Checks the rules of `schema`, which stand at `path`. `uncorrelatable` is where old and new values cannot be told
    /// apart any more; `limited` refuses rules that may cost too much.
    pub fn check_rules(
        &self,
        path: &str,
        schema: &Structural,
        uncorrelatable: Option<&str>,
        limited: bool,
        total: &mut Budget,
        errors: &mut Vec<FieldError>,
    ) {
        for (index, rule) in schema.rules.iter().enumerate() {
            let at = |field: &str| format!("{path}.x-kubernetes-validations[{index}].{field}");
            let mut cost = |field: &str, name: &str, cost: u64, errors: &mut Vec<FieldError>| {
                if limited && cost > RULE_LIMIT {
                    errors.push(FieldError::forbidden(at(field), &exceeds(name, cost, RULE_LIMIT)));
                }
                total.add(cost, at(field));
            };
            let compiled = self.compile_rule(schema, rule);
            let uses_old = compiled.uses_old;
            match &compiled.program {
                Ok(program) => cost("rule", "estimated rule cost", self.cost_of_all(program.max_cost), errors),
                Err(why) => errors.push(FieldError::invalid(at("rule"), &shown(rule), why.to_string())),
            }
            match self.compile_message(rule) {
                None => {}
                Some(Ok(program)) => {
                    cost("messageExpression", "estimated messageExpression cost", program.max_cost, errors);
                }
                Some(Err(why)) => {
                    errors.push(FieldError::invalid(at("messageExpression"), &shown(rule), why.to_string()));
                }
            }
            if let (true, Some(uncorrelatable)) = (uses_old, uncorrelatable) {
                let why = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelatable}"
                );
                errors.push(FieldError::invalid(at("rule"), &json!(rule.rule), why));
            }
            if let (false, true, Some(optional)) = (uses_old, compiled.program.is_ok(), rule.optional_old_self) {
                let why = "may not be set if oldSelf is not used in rule";
                errors.push(FieldError::invalid(at("optionalOldSelf"), &json!(optional), why));
            }
        }
    }

    fn compile_rule(&self, schema: &Structural, rule: &ValidationRule) -> Compiled {
        let program = cel::compile(&rule.rule, &self.scope(rule), &Type::Bool).map_err(|error| match error {
            CompileError::Issues(issues) => RuleError::Issues(issues),
            CompileError::Result(_) => RuleError::NotBool,
        });
        let uses = |program: &Program| program.uses.iter().any(|name| name == "oldSelf");
        Compiled {
            uses_old: program.as_ref().is_ok_and(uses),
            message: self.compile_message(rule).and_then(Result::ok),
            field_path: match rule.field_path.as_str() {
                "" => String::new(),
                path => field_path::resolve(path, schema, true).map(|(shown, _)| shown).unwrap_or_default(),
            },
            program,
            rule: rule.clone(),
        }
    }

    fn compile_message(&self, rule: &ValidationRule) -> Option<Result<Program, RuleError>> {
        if rule.message_expression.is_empty() {
            return None;
        }
        let program = cel::compile(&rule.message_expression, &self.scope(rule), &Type::String);
        Some(program.map_err(|error| match error {
            CompileError::Issues(issues) => RuleError::MessageIssues(issues),
            CompileError::Result(_) => RuleError::MessageNotString,
        }))
    }

    /// Compiles the rules of `schema` and of all below it.
    pub fn compile(&self, schema: &Structural) -> Rules {
        if !schema.any(&|node| !node.rules.is_empty()) {
            return Rules::default();
        }
        let some = |rules: Rules| (!rules.is_empty()).then_some(rules);
        let items = schema.items.as_deref().and_then(|items| some(self.items(schema, items)?.compile(items)));
        let values = match &schema.additional {
            Additional::Of(values) => self.values(schema, values).and_then(|scope| some(scope.compile(values))),
            Additional::None | Additional::Any => None,
        };
        let properties = schema.properties.iter().filter_map(|(name, property)| {
            Some((name.clone(), some(self.property(name, property)?.compile(property))?))
        });
        Rules {
            rules: schema.rules.iter().map(|rule| self.compile_rule(schema, rule)).collect(),
            items: items.map(Box::new),
            values: values.map(Box::new),
            properties: properties.collect(),
            schema: schema.clone(),
        }
    }
}

impl Rules {
    /// Whether there is nothing to evaluate.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.items.is_none() && self.values.is_none() && self.properties.is_empty()
    }
}

impl Budget {
    fn add(&mut self, cost: u64, path: String) {
        self.total = self.total.saturating_add(cost);
        self.most.push((cost, path));
        self.most.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        self.most.truncate(4);
    }

    /// Why the rules of the schema at `path` together cost too much, if they do.
    pub fn errors(self, path: &str) -> Vec<FieldError> {
        if self.total <= SCHEMA_LIMIT {
            return Vec::new();
        }
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        let most = self.most.iter().map(|(_, path)| FieldError::forbidden(path, why));
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let all = FieldError::forbidden(path, &exceeds(name, self.total, SCHEMA_LIMIT));
        most.chain([all]).collect()
    }
}

fn exceeds(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule as an error shows it.
fn shown(rule: &ValidationRule) -> Json {
    json!({"Rule": rule.rule, "Message": rule.message, "MessageExpression": rule.message_expression,
        "Reason": rule.reason, "FieldPath": rule.field_path, "OptionalOldSelf": rule.optional_old_self})
}

#[cfg(test)]
mod tests;
