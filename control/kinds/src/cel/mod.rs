//! CEL, the Common Expression Language, as Kubernetes has it: rules of custom resources and of admission policies.
//!
//! ```text
//!   text ──ast (crate `cel` parses)──▶ Expr ──check──▶ Program ──eval──▶ Value, at a cost
//!                                       ▲      └─estimate: what it may cost at most
//!            variables with their types ┘
//! ```
//!
//! The crate `cel` reads the text. It neither checks types nor bounds what an expression costs, so that is here:
//!
//! - **check**: every name, field and call is known, and the result is of the type that is asked for.
//! - **estimate**: the most that a rule may cost, from the sizes that a schema allows. Too costly rules are refused
//!   when they are written.
//! - **eval**: each step costs something, as in cel-go. An expression ends with [`EvalError::CostLimit`] when it has
//!   spent its budget, and so neither hangs nor fills the memory.
//! - **message**: objects that an expression makes, for policies that change objects; **json** is what an object holds
//!   of a value.
//! - **library**: Kubernetes' functions; `signatures` declares all functions there are.
//!
//! Sources: cel-spec, cel-go 0.26, `k8s.io/apiserver/pkg/cel`.

mod access;
mod ast;
mod call;
pub mod check;
mod check_call;
mod check_message;
mod convert;
pub mod declare;
mod estimate;
pub mod eval;
mod fold;
pub mod json;
pub mod library;
mod list;
mod macros;
pub mod message;
mod operators;
pub mod pattern;
mod selects;
mod signatures;
#[cfg(test)]
mod tests;
pub mod typing;
mod unification;
pub mod value;

pub use check::{Program, Scope, compile};
pub use eval::{Activation, EvalError};
pub use typing::Type;
pub use value::Value;

/// What one evaluation of one expression may cost. Source: `PerCallLimit`.
pub const CALL_LIMIT: u64 = 1_000_000;
/// What all rules together may cost for one object. Source: `RuntimeCELCostBudget`.
pub const OBJECT_BUDGET: u64 = 10_000_000;
/// What a rule may cost by its estimate. Source: `StaticEstimatedCostLimit`.
pub const RULE_LIMIT: u64 = 10_000_000;
/// What all rules of a schema may cost by their estimates. Source: `StaticEstimatedCRDCostLimit`.
pub const SCHEMA_LIMIT: u64 = 100_000_000;
/// The largest request, in bytes: it bounds what a schema does not.
pub const MAX_REQUEST: u64 = 3 * 1024 * 1024;
