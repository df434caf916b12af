//! Evaluation of calls: operators, conversions, and the functions of the libraries. `&&`, `||` and `?:` evaluate no
//! more than they need.

use super::{
    access::{index_of, index_optional},
    ast::{Expr, Kind},
    convert,
    eval::{Answer, EvalError, MAX_TEXT, Run, failure, traversal},
    library,
    operators::{self, Failure, equal_counted, order},
    signatures,
    value::Value,
};

impl<'a, 'v> Run<'a, 'v> {
    pub(super) fn call(&mut self, name: &'a str, target: Option<&'a Expr>, arguments: &'a [Expr]) -> Answer<'v> {
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
}
