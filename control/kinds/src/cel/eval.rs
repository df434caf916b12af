//! Evaluation: the value of an expression, and what it cost.
//!
//! Costs are cel-go's: 1 for a name, a field or a call; more for what looks at many values. A step is charged before it
//! is made wherever what it makes can be large.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use super::{
    CALL_LIMIT, Program,
    access::{constant, index_of, index_optional, optional, select},
    ast::{Expr, Kind},
    convert::{self, ConversionError},
    library::{self, network::AddressError, quantity::QuantityError},
    message::Message,
    operators::{self, Failure, equal_counted, order},
    pattern::{self, Pattern},
    signatures,
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
    activation: &'a Activation<'v>,
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
    fn meet_pattern(&mut self, text: &Rc<str>, is_constant: bool) -> Result<(), EvalError> {
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

    pub(super) fn arithmetic(&mut self, operator: &str, a: Value<'v>, b: Value<'v>) -> Answer<'v> {
        let cost = match (&a, &b) {
            (Value::String(_), Value::String(_)) | (Value::Bytes(_), Value::Bytes(_)) => {
                let size = a.size().saturating_add(b.size());
                if size > MAX_TEXT as u64 {
                    return Err(failure("text too long"));
                }
                traversal(size)
            }
            (Value::List(list), Value::List(_)) if list.schema().is_some_and(|schema| schema.list_type.is_some()) => {
                traversal(a.size().saturating_mul(b.size())).max(1)
            }
            _ => 1,
        };
        self.charge(cost)?;
        operators::arithmetic(operator, a, b).map_err(|failure| match failure {
            Failure::NoOverload => EvalError::NoOverload,
            Failure::Message(message) => EvalError::Message(message.to_owned()),
        })
    }

    fn call(&mut self, name: &'a str, target: Option<&'a Expr>, arguments: &'a [Expr]) -> Answer<'v> {
        match (name, arguments) {
            ("_&&_", [a, b]) => return self.junction(a, b, false),
            ("_||_", [a, b]) => return self.junction(a, b, true),
            ("_?_:_", [condition, yes, no]) => {
                return match self.eval(condition)? {
                    Value::Bool(true) => self.eval(yes),
                    Value::Bool(false) => self.eval(no),
                    _ => Err(EvalError::NoOverload),
                };
            }
            ("@not_strictly_false", [only]) => {
                return match self.eval(only) {
                    Ok(value) => Ok(Value::Bool(!matches!(value, Value::Bool(false)))),
                    Err(EvalError::CostLimit) => Err(EvalError::CostLimit),
                    Err(_) => Ok(Value::Bool(true)),
                };
            }
            _ => {}
        }
        let qualified = match target.map(|target| &target.kind) {
            Some(Kind::Ident(prefix)) if signatures::QUALIFIED.contains(&prefix.as_str()) => {
                let is_variable =
                    self.locals.iter().any(|(known, _)| known == prefix) || self.activation.get(prefix).is_some();
                (!is_variable).then_some(prefix)
            }
            _ => None,
        };
        let mut values = Vec::with_capacity(arguments.len() + 1);
        if let (Some(target), None) = (target, qualified) {
            values.push(self.eval(target)?);
        }
        for argument in arguments {
            values.push(self.eval(argument)?);
        }
        if let ("matches" | "find" | "findAll", [pattern, ..], [_, Value::String(text), ..]) =
            (name, arguments, values.as_slice())
        {
            self.meet_pattern(text, matches!(pattern.kind, Kind::Literal(_)))?;
        }
        match qualified {
            Some(prefix) => library::call(self, &format!("{prefix}.{name}"), &values),
            None => self.apply(name, target.is_some(), values),
        }
    }

    /// `&&` and `||`: one side that decides makes the other's error not matter.
    fn junction(&mut self, a: &'a Expr, b: &'a Expr, decides: bool) -> Answer<'v> {
        let first = match self.eval(a) {
            Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
            Err(EvalError::CostLimit) => return Err(EvalError::CostLimit),
            other => other,
        };
        match (first, self.eval(b)) {
            (_, Ok(Value::Bool(value))) if value == decides => Ok(Value::Bool(decides)),
            (_, Err(EvalError::CostLimit)) => Err(EvalError::CostLimit),
            (Err(error), _) | (Ok(Value::Bool(_)), Err(error)) => Err(error),
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!decides)),
            _ => Err(EvalError::NoOverload),
        }
    }

    /// A function of values.
    fn apply(&mut self, name: &'a str, is_member: bool, mut values: Vec<Value<'v>>) -> Answer<'v> {
        match (name, values.as_slice()) {
            ("_==_" | "_!=_", [a, b]) => {
                let smaller = a.size().min(b.size());
                let mut work = 0;
                let same = equal_counted(a, b, &mut work);
                self.charge(traversal(smaller.max(work)))?;
                return Ok(Value::Bool(same == (name == "_==_")));
            }
            ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => {
                self.charge(traversal(a.size().min(b.size())))?;
                let found = match (order(a, b), a, b) {
                    (Some(found), ..) => found,
                    // Not a number is less than nothing.
                    (None, Value::Double(_), _) | (None, _, Value::Double(_)) => return Ok(Value::Bool(false)),
                    _ => return Err(EvalError::NoOverload),
                };
                return Ok(Value::Bool(match name {
                    "_<_" => found.is_lt(),
                    "_<=_" => found.is_le(),
                    "_>_" => found.is_gt(),
                    _ => found.is_ge(),
                }));
            }
            ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [_, _]) => {
                let (b, a) = (values.pop().unwrap_or(Value::Null), values.pop().unwrap_or(Value::Null));
                return self.arithmetic(name, a, b);
            }
            ("_[_]", [container, index]) => {
                self.charge(1)?;
                return match container {
                    Value::Optional(Some(inner)) => index_optional(inner, index),
                    Value::Optional(None) => Ok(Value::Optional(None)),
                    _ => index_of(container, index),
                };
            }
            ("_[?_]", [container, index]) => {
                self.charge(1)?;
                return match container {
                    Value::Optional(Some(inner)) => index_optional(inner, index),
                    Value::Optional(None) => Ok(Value::Optional(None)),
                    _ => index_optional(container, index),
                };
            }
            ("@in", [item, container]) => {
                return match container {
                    Value::List(list) => {
                        self.charge(list.len() as u64)?;
                        let mut work = 0;
                        let found = list.iter().any(|one| equal_counted(&one, item, &mut work));
                        self.charge(traversal(work.saturating_sub(list.len() as u64)))?;
                        Ok(Value::Bool(found))
                    }
                    Value::Map(map) => {
                        self.charge(1)?;
                        Ok(Value::Bool(map.get(item).is_some()))
                    }
                    _ => Err(EvalError::NoOverload),
                };
            }
            _ => {}
        }
        self.unary(name, is_member, values)
    }

    fn unary(&mut self, name: &'a str, is_member: bool, values: Vec<Value<'v>>) -> Answer<'v> {
        if let [value] = values.as_slice() {
            match (name, value) {
                ("!_", value) => {
                    self.charge(1)?;
                    let Value::Bool(value) = value else { return Err(EvalError::NoOverload) };
                    return Ok(Value::Bool(!value));
                }
                ("-_", Value::Int(value)) => {
                    self.charge(1)?;
                    return value.checked_neg().map(Value::Int).ok_or_else(|| failure("integer overflow"));
                }
                ("-_", Value::Double(value)) => {
                    self.charge(1)?;
                    return Ok(Value::Double(-value));
                }
                ("size", value) => {
                    self.charge(1)?;
                    return value.length().map(Value::Int).ok_or(EvalError::NoOverload);
                }
                ("dyn", value) => {
                    self.charge(1)?;
                    return Ok(value.clone());
                }
                ("type", value) => {
                    self.charge(1)?;
                    return Ok(Value::Type(value.type_name()));
                }
                ("int" | "uint" | "double" | "string" | "bytes" | "bool" | "timestamp" | "duration", value)
                    if !is_member =>
                {
                    let is_text = matches!(value, Value::String(_) | Value::Bytes(_));
                    self.charge(if is_text && matches!(name, "string" | "bytes") {
                        traversal(value.size())
                    } else {
                        1
                    })?;
                    if let Some(converted) = convert::convert(name, value) {
                        return converted.map_err(EvalError::from);
                    }
                    return Err(EvalError::NoOverload);
                }
                _ => {}
            }
        }
        library::call(self, name, &values)
    }
}
