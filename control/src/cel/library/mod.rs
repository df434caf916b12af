//! Kubernetes' functions: what each does with its values, and what it costs. `signatures` declares them.
//!
//! Each file answers the calls of one library, or nothing where the name is not its own.

use super::{
    eval::{Answer, EvalError, Run},
    value::{Opaque, Value},
};

pub mod format;
mod lists;
mod network;
mod optional;
pub mod quantity;
pub mod semver;
mod strings;
mod times;
pub mod url;

/// Calls a function. A member's first argument is the value it is called on.
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, is_member: bool, values: Vec<Value<'v>>) -> Answer<'v> {
    if let (true, Some(Value::Opaque(Opaque::Handle(handle)))) = (is_member, values.first()) {
        let cost = match name {
            "check" => 350_000,
            "fieldSelector" | "labelSelector" => values.get(1).map_or(0, Value::size).saturating_mul(25),
            _ => 1,
        };
        run.charge(cost)?;
        let answer = handle.call(name, &values[1..]);
        return answer.unwrap_or_else(|| Err(String::new())).map_err(|message| match message.as_str() {
            "" => EvalError::NoOverload,
            _ => EvalError::Message(message),
        });
    }
    let libraries = [
        strings::call,
        lists::call,
        optional::call,
        quantity::call,
        network::call,
        url::call,
        format::call,
        semver::call,
        times::call,
    ];
    for library in libraries {
        if let Some(answer) = library(run, name, &values) {
            return answer;
        }
    }
    Err(EvalError::NoOverload)
}
