//! Evaluation: the value of an expression, and what it cost.
//!
//! Costs are cel-go's: 1 for a name, a field or a call; more for what looks at many values. A step is charged before it
//! is made wherever what it makes can be large.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use super::{
    CALL_LIMIT, Program,
    access::{constant, optional, select},
    ast::{Expr, Kind},
    convert::ConversionError,
    library::{network::AddressError, quantity::QuantityError},
    message::Message,
    operators,
    pattern::{self, Pattern},
    value::{Map, Value},
};

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// No function of the name takes these values.
    #[error("no such overload")]
    NoOverload,
    /// It has spent what it may cost.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// A map or an object does not have it.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// A list is shorter.
    #[error("index out of bounds: {0}")]
    OutOfBounds(i64),
    /// A value cannot be one of another type.
    #[error(transparent)]
    Conversion(#[from] ConversionError),
    /// A text is no address, or no network.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A text is no quantity.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// Anything else, in the words of cel-go: `division by zero`.
    #[error("{0}")]
    Message(String),
}

/// The values of the variables.
#[derive(Default)]
pub struct Activation<'v> {
    values: Vec<(&'static str, Value<'v>)>,
}

/// What came of an evaluation.
pub struct Evaluated<'v> {
    /// The value, or why there is none.
    pub value: Result<Value<'v>, EvalError>,
    /// In Kubernetes' units of cost.
    pub cost: u64,
}

impl<'v> Activation<'v> {
    /// With a variable.
    pub fn with(mut self, name: &'static str, value: Value<'v>) -> Self {
        self.values.push((name, value));
        self
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&Value<'v>> {
        self.values.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl Program {
    /// Evaluates the expression, at a cost of at most [`CALL_LIMIT`].
    pub fn evaluate<'v>(&self, activation: &Activation<'v>) -> Evaluated<'v> {
        let mut run =
            Run { activation, locals: Vec::new(), cost: 0, patterns: HashMap::new(), constants: FREE_CONSTANTS };
        let value = run.eval(&self.expr);
        Evaluated { value, cost: run.cost }
    }
}

/// One evaluation.
pub struct Run<'a, 'v> {
    pub(super) activation: &'a Activation<'v>,
    /// Variables of loops, the innermost last.
    pub(super) locals: Vec<(&'a str, Value<'v>)>,
    cost: u64,
    /// Regular expressions that were met, compiled.
    patterns: HashMap<Rc<str>, Option<Arc<Pattern>>>,
    /// How many bytes of patterns that stand in the expression may still be compiled for nothing.
    constants: usize,
}

/// What a step answers.
pub type Answer<'v> = Result<Value<'v>, EvalError>;

/// An error with these words.
pub fn failure(message: impl Into<String>) -> EvalError {
    EvalError::Message(message.into())
}

/// Cost of traversing so many characters.
pub fn traversal(size: u64) -> u64 {
    size.div_ceil(10)
}

/// Most regular expressions that are kept compiled.
const PATTERNS: usize = 64;
/// Patterns that stand in the expression cost nothing to compile, as in Kubernetes, which compiles them with it; but
/// only up to so many bytes.
const FREE_CONSTANTS: usize = 1 << 20;
/// Most bytes of a text that an expression makes.
pub const MAX_TEXT: usize = 10 << 20;

impl<'a, 'v> Run<'a, 'v> {
    /// Spends some of what the expression may cost.
    pub fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > CALL_LIMIT { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    /// A compiled regular expression that was met before, or by [`Self::meet_pattern`].
    pub fn pattern(&mut self, text: &Rc<str>) -> Result<Arc<Pattern>, EvalError> {
        if !self.patterns.contains_key(text) {
            self.meet_pattern(text, false)?;
        }
        let compiled = self.patterns.get(text).cloned().flatten();
        compiled.ok_or_else(|| failure(format!("error parsing regexp: {text}")))
    }

    /// Compiles a pattern, unless it was met before, and charges for that. What the cost is does not depend on what
    /// other expressions have compiled.
    pub(super) fn meet_pattern(&mut self, text: &Rc<str>, is_constant: bool) -> Result<(), EvalError> {
        if self.patterns.contains_key(text) {
            return Ok(());
        }
        if !is_constant {
            self.charge(traversal(text.len() as u64))?;
        }
        let compiled = pattern::compile(text).ok();
        let size = compiled.as_ref().map_or(FREE_CONSTANTS, |pattern| pattern.size());
        match self.constants.checked_sub(size).filter(|_| is_constant) {
            Some(left) => self.constants = left,
            None => self.charge(compiled.as_ref().map_or(pattern::COST_OF_REFUSAL, |pattern| pattern.cost()))?,
        }
        if self.patterns.len() >= PATTERNS {
            self.patterns.clear();
        }
        self.patterns.insert(text.clone(), compiled);
        Ok(())
    }

    pub(super) fn eval(&mut self, expr: &'a Expr) -> Answer<'v> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(constant(literal)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, test } => {
                let operand = self.eval(operand)?;
                match test {
                    true => self.has(&operand, field),
                    false => {
                        self.charge(1)?;
                        select(operand, field)
                    }
                }
            }
            Kind::OptionalSelect { operand, field } => {
                let operand = self.eval(operand)?;
                self.charge(1)?;
                let inner = match operand {
                    Value::Optional(None) => return Ok(Value::Optional(None)),
                    Value::Optional(Some(inner)) => (*inner).clone(),
                    other => other,
                };
                match inner {
                    Value::Map(map) => Ok(optional(map.field(field))),
                    _ => Err(EvalError::NoOverload),
                }
            }
            Kind::List(items) => {
                let mut values = Vec::with_capacity(items.len());
                for (item, is_optional) in items {
                    match (self.eval(item)?, is_optional) {
                        (Value::Optional(None), true) => {}
                        (Value::Optional(Some(inner)), true) => values.push((*inner).clone()),
                        (value, _) => values.push(value),
                    }
                }
                self.charge(10)?;
                Ok(Value::list(values))
            }
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.message(name, fields),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Call { name, target, arguments } => self.call(name, target.as_deref(), arguments),
        }
    }

    fn ident(&mut self, name: &str) -> Answer<'v> {
        self.charge(1)?;
        if let Some((_, value)) = self.locals.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        if let Some(value) = self.activation.get(name) {
            return Ok(value.clone());
        }
        let r#type = match name {
            "bool" | "int" | "uint" | "double" | "string" | "bytes" | "list" | "map" | "null_type" | "type"
            | "optional_type" => Some(name),
            _ => None,
        };
        const NAMES: &[&str] =
            &["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type"];
        let known = r#type.and_then(|name| NAMES.iter().find(|known| **known == name));
        known.map(|name| Value::Type(name)).ok_or_else(|| failure(format!("no such attribute(s): {name}")))
    }

    fn has(&mut self, operand: &Value<'v>, field: &str) -> Answer<'v> {
        match operand {
            Value::Map(map) => Ok(Value::Bool(map.field(field).is_some())),
            Value::Message(message) => message.has(field),
            Value::Optional(None) => Ok(Value::Bool(false)),
            Value::Optional(Some(inner)) => self.has(&inner.clone(), field),
            _ => Err(EvalError::NoOverload),
        }
    }

    fn map(&mut self, entries: &'a [(Expr, Expr, bool)]) -> Answer<'v> {
        let mut made: Vec<(Value<'v>, Value<'v>)> = Vec::with_capacity(entries.len());
        for (key, value, is_optional) in entries {
            let key = self.eval(key)?;
            let value = match (self.eval(value)?, is_optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(inner)), true) => (*inner).clone(),
                (value, _) => value,
            };
            self.charge(traversal(made.len() as u64))?;
            if made.iter().any(|(known, _)| operators::equal(known, &key)) {
                return Err(failure(format!("Failed with repeated key {key:?}")));
            }
            made.push((key, value));
        }
        self.charge(30)?;
        Ok(Value::Map(Map::Made(Rc::new(made))))
    }

    fn message(&mut self, name: &str, fields: &'a [(String, Expr, bool)]) -> Answer<'v> {
        let mut made = Vec::with_capacity(fields.len());
        for (field, value, is_optional) in fields {
            match (self.eval(value)?, is_optional) {
                (Value::Optional(None), true) => {}
                (Value::Optional(Some(inner)), true) => made.push((field.as_str().into(), (*inner).clone())),
                (_, true) => {
                    return Err(failure(format!("cannot initialize optional entry '{field}' from non-optional")));
                }
                (value, false) => made.push((field.as_str().into(), value)),
            }
        }
        self.charge(40)?;
        Message::new(name, made).map(Value::Message)
    }
}
