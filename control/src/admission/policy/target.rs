//! What every policy says beside its rules: which requests it is about, of which kind its parameters are, and whether
//! what goes wrong with it refuses the request.

use std::sync::Arc;

use serde_json::Value;

use super::{
    binding::{Binding, Param, ParamsError},
    resources::MatchResources,
};
use crate::{
    admission::{attributes::Attributes, per_revision::RevisionValue, versions::Versioned},
    kinds::Kind,
    status::Status,
};

/// See the module.
#[derive(Debug)]
pub struct PolicyTarget {
    /// `matchConstraints`
    pub constraints: MatchResources,
    /// API version and kind of the parameters.
    pub param_kind: Option<(String, String)>,
    /// Whether an error refuses the request.
    pub fails: bool,
}

/// A policy that a binding puts to work on a request.
pub struct Invocation<'p, P> {
    /// Of the policy.
    pub name: &'p str,
    /// Its rules.
    pub policy: &'p P,
    /// What puts it to work.
    pub binding: &'p Binding,
    /// The kind, in the version that the policy names, in which it sees the objects.
    pub invoked: Arc<Kind>,
    /// It is evaluated once for each.
    pub params: Vec<Param>,
}

/// A policy or binding of which it cannot be told whether, or with what, it is put to work.
pub struct Misconfigured<'p> {
    /// Of the policy.
    pub name: &'p str,
    /// Of the binding, if it is that.
    pub binding: Option<&'p str>,
    /// For the client.
    pub why: ConfigurationError,
    /// Whether it refuses the request.
    pub fails: bool,
}

/// Why it cannot be told whether, or with what, a policy is put to work. The words are those of Kubernetes.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// Whether the policy is about the request.
    #[error("failed to configure policy: {0}")]
    Policy(Box<Status>),
    /// Whether the binding is.
    #[error("failed to configure binding: {0}")]
    Binding(Box<Status>),
    /// With which parameters.
    #[error("failed to configure binding: {0}")]
    Params(ParamsError),
}

impl PolicyTarget {
    /// Reads a policy's `spec`.
    pub fn read(spec: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = &spec["paramKind"];
        Self {
            constraints: MatchResources::read(&spec["matchConstraints"]),
            param_kind: kind.is_object().then(|| (text(&kind["apiVersion"]), text(&kind["kind"]))),
            fails: spec["failurePolicy"] != "Ignore",
        }
    }
}

/// All policies that bindings put to work on a request, in the order of their names and of those of their bindings.
pub fn invocations<'p, P>(
    policies: &'p [RevisionValue<P>],
    bindings: &'p [RevisionValue<Binding>],
    target: impl Fn(&P) -> &PolicyTarget,
    attributes: &Attributes<'_>,
    objects: &Versioned<'_>,
) -> Vec<Result<Invocation<'p, P>, Misconfigured<'p>>> {
    let mut found = Vec::new();
    for made in policies {
        let (name, Some(policy)) = (&*made.name, made.value.as_deref()) else { continue };
        let of_policy = || bindings.iter().filter_map(|made| made.value.as_deref()).filter(|one| one.policy == name);
        if of_policy().next().is_none() {
            continue;
        }
        let PolicyTarget { constraints, param_kind, fails } = target(policy);
        let wrong = |binding, why| Err(Misconfigured { name, binding, why, fails: *fails });
        let invoked = match constraints.matching(attributes, objects.object(), objects.old()) {
            Ok(Some(invoked)) => invoked,
            Ok(None) => continue,
            Err(status) => {
                found.push(wrong(None, ConfigurationError::Policy(status.into())));
                continue;
            }
        };
        for binding in of_policy() {
            let taken = binding.resources.as_ref().map(|resources| {
                resources.matching(attributes, objects.object(), objects.old()).map(|kind| kind.is_some())
            });
            let params = match taken.unwrap_or(Ok(true)) {
                Ok(true) => binding.params(param_kind.as_ref(), attributes).map_err(ConfigurationError::Params),
                Ok(false) => continue,
                Err(status) => Err(ConfigurationError::Binding(status.into())),
            };
            found.push(match params {
                Ok(params) => Ok(Invocation { name, policy, binding, invoked: invoked.clone(), params }),
                Err(why) => wrong(Some(binding.name.as_str()), why),
            });
        }
    }
    found
}
