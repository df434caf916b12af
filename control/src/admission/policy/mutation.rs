//! One mutating policy, compiled: its conditions, variables and mutations, and what these make of an object.

use std::fmt::Display;

use serde_json::{Map, Value, json};

use super::{
    target::PolicyTarget,
    variables::{Declared, Variables},
};
use crate::{
    admission::{
        attributes::Attributes,
        decoded,
        expression::{Conditions, ErrorType, Expression, ExpressionError, Input},
    },
    cel::{
        self, Value as Cel,
        json::{NotJson, to_json, to_json_within},
        message::{JSON_PATCH, Message, OBJECT},
    },
    field_management::{OverlayError, overlay},
    kinds::{
        Kind,
        admissionregistration::scope::{ExpressionCompileError, apply_configuration, json_patch},
    },
    patch,
    status::Status,
};

/// A policy that can be evaluated.
#[derive(Debug)]
pub struct Mutator {
    /// What it is about, and when it fails.
    pub target: PolicyTarget,
    /// `matchConditions`
    pub conditions: Conditions,
    /// In their order; each sees what those before it made.
    pub mutations: Vec<Mutation>,
    /// Whether it wants to be asked again where others changed the object after it.
    pub reinvoked: bool,
    variables: Variables,
}

/// One change, as an expression says it.
#[derive(Debug)]
pub struct Mutation {
    expression: Expression,
    form: PatchType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PatchType {
    ApplyConfiguration,
    JsonPatch,
}

/// What an expression came to.
enum MutationResult {
    /// The part of an object that is to be laid over it.
    Overlay(Value),
    /// Operations.
    Patch(Value),
}

/// Why a mutation was not made.
#[derive(Debug)]
pub enum MutationError {
    /// The failure policy decides.
    Failed(MutationFailure),
    /// The request is refused, whatever the failure policy says.
    Fatal(Status),
}

/// Why an expression changes nothing. The words are those of Kubernetes.
#[derive(Debug, thiserror::Error)]
pub enum MutationFailure {
    /// It is no expression.
    #[error(transparent)]
    Compilation(ExpressionCompileError),
    /// It has no value.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// It made a configuration that no object can hold.
    #[error("type mismatch: {0}")]
    Configuration(NotJson),
    /// Objects in it are called by names that are not those of their places.
    #[error("type mismatch: {}", .0.join("\n"))]
    TypeNames(Vec<String>),
    /// It made no configuration, but something of this type.
    #[error("unsupported return type from ApplyConfiguration expression: {0}")]
    NoConfiguration(&'static str),
    /// It made no list of operations.
    #[error("type mismatch: JSONPatchType.expression should evaluate to array")]
    NoArray,
    /// It made a list of something of this type.
    #[error("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {0}")]
    NoOperation(&'static str),
    /// An operation has a value that no object can hold.
    #[error("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {0}")]
    Operation(NotJson),
    /// The configuration cannot be laid over the object.
    #[error("error applying patch: {0}")]
    Overlay(OverlayError),
    /// What the configuration makes is no object of its kind.
    #[error("error applying patch: {0}")]
    NoObject(Box<Status>),
    /// The patch does not fit the object.
    #[error("JSON Patch: {0}")]
    Unfit(String),
    /// It is no patch, or makes too much.
    #[error("JSON Patch: {0}")]
    NoPatch(Box<Status>),
}

impl MutationFailure {
    fn error_type(&self) -> ErrorType {
        match self {
            Self::Expression(error) => error.error_type(),
            Self::Compilation(ExpressionCompileError::Issues(_)) => ErrorType::Compile,
            // Kubernetes goes by the text, which begins otherwise here.
            Self::Compilation(ExpressionCompileError::Result { .. }) => ErrorType::Invalid,
            Self::Configuration(_)
            | Self::TypeNames(_)
            | Self::NoConfiguration(_)
            | Self::NoArray
            | Self::NoOperation(_)
            | Self::Operation(_)
            | Self::Overlay(_)
            | Self::NoObject(_)
            | Self::Unfit(_)
            | Self::NoPatch(_) => ErrorType::Invalid,
        }
    }
}

impl MutationError {
    /// As metrics tell it.
    pub fn error_type(&self) -> ErrorType {
        match self {
            Self::Failed(failure) => failure.error_type(),
            Self::Fatal(_) => ErrorType::Invalid,
        }
    }
}

impl Mutator {
    /// Compiles a stored policy.
    pub fn read(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let declared = Declared::read(spec);
        let scope = declared.known.for_mutations();
        let mutations = spec["mutations"].as_array().into_iter().flatten().map(|mutation| {
            let (form, field, expected) = match mutation["patchType"].as_str() {
                Some("JSONPatch") => (PatchType::JsonPatch, "jsonPatch", json_patch()),
                _ => (PatchType::ApplyConfiguration, "applyConfiguration", apply_configuration()),
            };
            let text = mutation[field]["expression"].as_str().unwrap_or_default();
            Mutation { expression: Expression::compile(text, &expected, &scope), form }
        });
        Self {
            target: PolicyTarget::read(spec),
            mutations: mutations.collect(),
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            conditions: declared.conditions,
            variables: declared.variables,
        }
    }

    /// What one of its mutations makes of the object that `input` shows.
    pub fn apply(
        &self,
        mutation: &Mutation,
        input: &Input<'_>,
        attributes: &Attributes<'_>,
        invoked: &Kind,
    ) -> Result<Value, MutationError> {
        let schema = decoded::schema(attributes, invoked).ok_or_else(|| MutationError::Fatal(no_schema(attributes)))?;
        match mutation.change(input, &self.variables).map_err(MutationError::Failed)? {
            MutationResult::Overlay(mut config) => {
                for field in ["apiVersion", "kind"] {
                    config[field] = input.object[field].clone();
                }
                let merged = overlay(&schema, input.object, &config)
                    .map_err(|error| MutationError::Failed(MutationFailure::Overlay(error)))?;
                decoded::decoded(attributes, invoked, merged)
                    .map_err(|status| MutationError::Failed(MutationFailure::NoObject(status.into())))
            }
            MutationResult::Patch(operations) => match patch::try_json(input.object, &operations) {
                Ok(patched) => decoded::decoded_strictly(attributes, invoked, patched).map_err(MutationError::Fatal),
                // An object that is not as the patch expects it stays as it is.
                Err(patch::Refusal::TestFailed(_)) => Ok(input.object.clone()),
                Err(patch::Refusal::Unfit(why)) => Err(MutationError::Failed(MutationFailure::Unfit(why))),
                Err(patch::Refusal::Refused(status)) => {
                    Err(MutationError::Failed(MutationFailure::NoPatch(status.into())))
                }
            },
        }
    }
}

impl Mutation {
    /// The value of the expression, which has a budget of its own.
    fn change(&self, input: &Input<'_>, variables: &Variables) -> Result<MutationResult, MutationFailure> {
        if let Err(error) = &self.expression.program {
            return Err(MutationFailure::Compilation(error.clone()));
        }
        let mut budget = cel::OBJECT_BUDGET;
        let known = variables.evaluate(input, &mut budget);
        let value = self.expression.evaluate(&known.activation(input), &mut budget, &known.failed)?;
        match (self.form, &value) {
            (PatchType::ApplyConfiguration, Cel::Message(message)) if message.name() == OBJECT => {
                let config = to_json(&value).map_err(MutationFailure::Configuration)?;
                check_type_names(message)?;
                Ok(MutationResult::Overlay(config))
            }
            (PatchType::ApplyConfiguration, _) => Err(MutationFailure::NoConfiguration(value.type_name())),
            (PatchType::JsonPatch, Cel::List(list)) => {
                let mut room = cel::MAX_REQUEST;
                let operations = list.iter().map(|item| operation(&item, &mut room));
                Ok(MutationResult::Patch(operations.collect::<Result<Vec<_>, _>>()?.into()))
            }
            (PatchType::JsonPatch, _) => Err(MutationFailure::NoArray),
        }
    }
}

/// One operation of a JSON Patch; what it takes, in bytes, is taken off `room`, which is for all of them.
fn operation(item: &Cel<'_>, room: &mut u64) -> Result<Value, MutationFailure> {
    let no_operation = || MutationFailure::NoOperation(item.type_name());
    let Cel::Message(message) = item else { return Err(no_operation()) };
    if message.name() != JSON_PATCH {
        return Err(no_operation());
    }
    let text = |field: &str| match message.get(field) {
        Some(Cel::String(text)) => text.to_string(),
        _ => String::new(),
    };
    let mut made = Map::new();
    let (op, path, from) = (text("op"), text("path"), text("from"));
    let length = [&op, &path, &from].map(String::len).iter().sum::<usize>() as u64;
    let left = room.checked_sub(length.saturating_add(1));
    *room = left.ok_or(MutationFailure::Operation(NotJson::TooLarge))?;
    made.insert("op".to_owned(), op.into());
    made.insert("path".to_owned(), path.into());
    if !from.is_empty() {
        made.insert("from".to_owned(), from.into());
    }
    if let Some(value) = message.get("value") {
        made.insert("value".to_owned(), to_json_within(value, room).map_err(MutationFailure::Operation)?);
        if let Cel::Message(message) = value {
            check_type_names(message)?;
        }
    }
    Ok(Value::Object(made))
}

fn check_type_names(message: &Message<'_>) -> Result<(), MutationFailure> {
    let errors = message.misnamed();
    if errors.is_empty() { Ok(()) } else { Err(MutationFailure::TypeNames(errors)) }
}

fn no_schema(attributes: &Attributes<'_>) -> Status {
    let (group, version, kind) = match attributes.form {
        Some(form) => (form.group, form.version, form.kind),
        None => (&*attributes.served.group, &*attributes.served.version, &*attributes.served.kind),
    };
    Status::unavailable(format!(
        "Resource kind {group}/{version}, Kind={kind} not found. There can be a delay between when \
         CustomResourceDefinitions are created and when they are available."
    ))
}

/// The status of a request that errors of policies refuse: the first is told, all are causes.
pub fn denial(attributes: &Attributes<'_>, errors: &[PolicyError]) -> Option<Status> {
    let first = errors.first()?;
    let mut status = Status::forbidden(attributes.subject(), "");
    status.message.clone_from(&first.message);
    if first.is_invalid {
        status.reason = "Invalid";
    }
    if let Some(details) = &mut status.details {
        details["causes"] = errors.iter().map(|error| json!({"message": error.message})).collect();
    }
    Some(status)
}

/// Why a policy refuses a request: not by what it says, but by what went wrong with it.
#[derive(Debug)]
pub struct PolicyError {
    message: String,
    /// Whether it could be evaluated at all, but not to its end.
    is_invalid: bool,
}

impl PolicyError {
    /// Of a policy that could not be evaluated.
    pub fn misconfigured(policy: &str, binding: Option<&str>, why: &dyn Display) -> Self {
        let message = match binding {
            Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {why}"),
            None => format!("policy {policy:?} denied request: {why}"),
        };
        Self { message, is_invalid: false }
    }

    /// Of a policy that has failed.
    pub fn failed(policy: &str, binding: &str, why: &dyn Display) -> Self {
        Self { is_invalid: true, ..Self::misconfigured(policy, Some(binding), why) }
    }
}
