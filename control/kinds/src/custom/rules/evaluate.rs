//! Evaluates the rules of a schema for one object, old values beside the new ones as far as they can be told apart.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`.

use std::rc::Rc;

use super::{Activation, Compiled, Json, OldItems, Rules, Structural, ValidationRule, Value, json};
use crate::{
    cel::{EvalError, Program},
    kinds::{FieldError, error_budget, field},
    warnings,
};

/// A new value and the one that it replaces.
type Pair<'v> = (&'v Json, &'v Json);

/// Which unchanged values excuse the errors here.
#[derive(Clone, Copy, Default)]
struct Ratchet<'v> {
    current: Option<Pair<'v>>,
    /// The nearest one above, where this value has no counterpart.
    parent: Option<Pair<'v>>,
}

impl<'v> Ratchet<'v> {
    fn excuses(self) -> bool {
        self.current.or(self.parent).is_some_and(|(new, old)| new == old)
    }

    fn key(self, schema: &Structural, key: &str) -> Self {
        let Some((new, old)) = self.current else { return self };
        if self.parent.is_none() && matches!(key, "apiVersion" | "kind") {
            return Self::default();
        }
        let known = schema.of_key(key).is_some();
        let current = new.get(key).zip(old.get(key)).filter(|_| known);
        Self { current, parent: self.current }
    }

    /// Of an item; `before` are the items of the old list here.
    fn index(self, before: &OldItems<'_, 'v>, item: &'v Json) -> Self {
        if self.current.is_none() {
            return self;
        }
        Self { current: before.find(item).map(|old| (item, old)), parent: self.current }
    }
}

/// The most bytes of a message that an expression makes.
const MAX_MESSAGE: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl Rules {
    /// Every rule that does not hold of `value` at `path`. Takes what the evaluation costs off `budget`, and ends when
    /// that is spent.
    pub fn validate(&self, path: &str, value: &Json, old: Option<&Json>, budget: &mut u64) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let ratchet = Ratchet { current: old.map(|old| (value, old)), parent: None };
        self.node(path, value, old, ratchet, budget, &mut errors);
        errors
    }

    /// Answers whether to go on.
    fn node<'v>(
        &'v self,
        path: &str,
        value: &'v Json,
        old: Option<&'v Json>,
        ratchet: Ratchet<'v>,
        budget: &mut u64,
        errors: &mut Vec<FieldError>,
    ) -> bool {
        if value.is_null() {
            return true;
        }
        let old = old.filter(|old| !old.is_null());
        if !self.rules.is_empty() && !self.own(path, value, old, ratchet, budget, errors) {
            return false;
        }
        match value {
            Json::Array(list) => {
                let Some(items) = &self.items else { return true };
                let before = OldItems::of(&self.schema, old);
                let ratcheted = OldItems::of(&self.schema, ratchet.current.map(|(_, old)| old));
                list.iter().enumerate().all(|(at, item)| {
                    let old = before.find(item);
                    let ratchet = ratchet.index(&ratcheted, item);
                    items.node(&field::item(path, at), item, old, ratchet, budget, errors)
                })
            }
            Json::Object(map) => {
                // An atomic map has no parts that could be told apart.
                let old = old.filter(|_| self.schema.map_type.as_deref() != Some("atomic"));
                map.iter().all(|(key, value)| {
                    let (rules, path) = match (self.properties.get(key), &self.values) {
                        (Some(rules), _) => (rules, error_budget::cut(child(path, key))),
                        (None, Some(values)) if !self.schema.properties.contains_key(key) => {
                            (&**values, error_budget::cut(format!("{path}[{key}]")))
                        }
                        _ => return true,
                    };
                    let old = old.and_then(|old| old.get(key));
                    rules.node(&path, value, old, ratchet.key(&self.schema, key), budget, errors)
                })
            }
            _ => true,
        }
    }

    fn own<'v>(
        &'v self,
        path: &str,
        value: &'v Json,
        old: Option<&'v Json>,
        ratchet: Ratchet<'v>,
        budget: &mut u64,
        errors: &mut Vec<FieldError>,
    ) -> bool {
        let r#type = json!(self.schema.r#type);
        let invalid = |why: String| FieldError::invalid(path, &r#type, why);
        for compiled in &self.rules {
            if *budget == 0 {
                errors.push(invalid(OUT_OF_BUDGET.to_owned()));
                return false;
            }
            let rule = &compiled.rule;
            let program = match &compiled.program {
                Ok(program) => program,
                Err(why) => {
                    errors.push(invalid(format!("rule compile error: {why}")));
                    continue;
                }
            };
            let optional = rule.optional_old_self == Some(true);
            // Nothing to compare with: a transition needs two states.
            if compiled.uses_old && old.is_none() && !optional {
                continue;
            }
            let activation = self.activation(value, old, optional);
            let evaluated = program.evaluate(&activation);
            if !spend(budget, evaluated.cost) {
                errors.push(invalid(OUT_OF_BUDGET.to_owned()));
                return false;
            }
            match evaluated.value {
                Ok(Value::Bool(true)) => continue,
                Ok(_) => {}
                Err(EvalError::NoOverload) => {
                    errors.push(invalid(format!(
                        "'no such overload': call arguments did not match a supported operator, function or macro \
                         signature for rule: {}",
                        named(rule)
                    )));
                    continue;
                }
                Err(EvalError::CostLimit) => {
                    errors.push(invalid(format!(
                        "'operation cancelled: actual cost limit exceeded': no further validation rules will be run \
                        due \
                         to call cost exceeds limit for rule: {}",
                        named(rule)
                    )));
                    return false;
                }
                Err(error) => {
                    errors.push(invalid(format!("{error} evaluating rule: {}", named(rule))));
                    continue;
                }
            }
            let message = match compiled.message.as_ref().map(|program| self::message(program, &activation, budget)) {
                None | Some(Message::None) => default_message(rule),
                Some(Message::Text(text)) => text,
                Some(Message::Refused(why)) => {
                    errors.push(FieldError::invalid(at(path, compiled), &r#type, why));
                    return false;
                }
            };
            // A rule about a transition saw a change; one about a state holds no unchanged value up.
            let error = error_of(&at(path, compiled), rule, &self.schema, value, &message);
            if compiled.uses_old || !ratchet.excuses() {
                errors.push(error);
            } else {
                warnings::add(format!("{}: {}", error.path, error.message));
            }
        }
        true
    }

    fn activation<'v>(&'v self, value: &'v Json, old: Option<&'v Json>, optional: bool) -> Activation<'v> {
        let of = |data: &'v Json| Value::of(data, Some(&self.schema));
        let activation = Activation::default().with("self", of(value));
        match (optional, old) {
            (true, old) => activation.with("oldSelf", Value::Optional(old.map(|old| Rc::new(of(old))))),
            (false, Some(old)) => activation.with("oldSelf", of(old)),
            (false, None) => activation,
        }
    }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn at(path: &str, compiled: &Compiled) -> String {
    if compiled.field_path.is_empty() { path.to_owned() } else { child(path, &compiled.field_path) }
}

fn spend(budget: &mut u64, cost: u64) -> bool {
    match budget.checked_sub(cost) {
        Some(left) => {
            *budget = left;
            true
        }
        None => {
            *budget = 0;
            false
        }
    }
}

/// How a rule is named in messages.
fn named(rule: &ValidationRule) -> &str {
    if rule.message.is_empty() { rule.rule.trim() } else { rule.message.trim() }
}

fn default_message(rule: &ValidationRule) -> String {
    if rule.message.is_empty() { format!("failed rule: {}", rule.rule.trim()) } else { rule.message.trim().to_owned() }
}

fn error_of(path: &str, rule: &ValidationRule, schema: &Structural, value: &Json, message: &str) -> FieldError {
    let is_large = matches!(schema.r#type.as_str(), "object" | "array");
    match rule.reason.as_deref() {
        Some("FieldValueForbidden") => FieldError::forbidden(path, message),
        Some("FieldValueRequired") => FieldError::required(path, message),
        Some("FieldValueDuplicate") => FieldError::duplicate(path, value),
        _ if is_large => FieldError::invalid_unnamed(path, message),
        _ => FieldError::invalid(path, value, message),
    }
}

/// What a message expression made.
enum Message {
    Text(String),
    /// Nothing that can be shown.
    None,
    /// The budget is spent.
    Refused(String),
}

fn message(program: &Program, activation: &Activation<'_>, budget: &mut u64) -> Message {
    let evaluated = program.evaluate(activation);
    if !spend(budget, evaluated.cost) {
        let why = "messageExpression evaluation failed due to running out of cost budget, no further validation rules \
        will be run";
        return Message::Refused(why.to_owned());
    }
    match evaluated.value {
        Ok(Value::String(text)) => match text.trim() {
            "" => Message::None,
            text if text.len() > MAX_MESSAGE || text.contains('\n') => Message::None,
            text => Message::Text(text.to_owned()),
        },
        Err(EvalError::CostLimit) => Message::Refused(format!(
            "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
            program.text
        )),
        _ => Message::None,
    }
}
