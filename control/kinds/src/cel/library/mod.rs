//! Kubernetes' functions: what each does with its values, and what it costs. `signatures` declares them.
//!
//! Each file answers the calls of one library, or nothing where the name is not its own.

use super::{
    eval::{Answer, EvalError, Run},
    value::Value,
};

pub mod authz;
pub mod format;
mod json_patch;
mod lists;
pub mod network;
mod optional;
pub mod quantity;
pub mod semver;
mod strings;
mod times;
pub mod url;

/// Calls a function. A member's first argument is the value it is called on.
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Answer<'v> {
    let libraries = [
        strings::call,
        lists::call,
        optional::call,
        quantity::call,
        network::call,
        url::call,
        format::call,
        semver::call,
        authz::call,
        json_patch::call,
        times::call,
    ];
    for library in libraries {
        if let Some(answer) = library(run, name, values) {
            return answer;
        }
    }
    Err(EvalError::NoOverload)
}
