//! ValidatingAdmissionPolicy: rules in CEL about any object, which bindings put to work.
//!
//! A policy says what it is about (`matching`) and what must hold (`compiled`); a binding says where, with which
//! parameters, and what becomes of a violation: the request is denied, its sender warned, or it is noted for audit.
//! Policies are compiled when they are first needed, and kept until they change.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy/validating`.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};

use self::compiled::{Compiled, Input, Verdict};
use super::Request;
use crate::warnings;
use crate::{
    kinds::{FieldError, Registry, label_selector},
    request::Verb,
    status::{Status, Subject},
    store::Snapshot,
};

mod compiled;
mod matching;

const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
const BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";

/// Evaluates the policies of the cluster. Cheap to clone; clones share what was compiled.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    compiled: Arc<Mutex<ByName>>,
}

/// Compiled policies, each with the revision that it was compiled from.
type ByName = HashMap<String, (u64, Arc<Compiled>)>;

/// A violation that denies the request.
struct Denial {
    message: String,
    reason: &'static str,
    code: u16,
}

/// Refuses a policy whose expressions cannot be evaluated. What was stored before is not compiled again.
pub fn must_compile(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let is_policy =
        request.kind.group == "admissionregistration.k8s.io" && request.kind.kind == "ValidatingAdmissionPolicy";
    let is_written = matches!(request.operation, Verb::Create | Verb::Update);
    if !is_policy || !is_written || request.old.is_some_and(|old| old["spec"] == object["spec"]) {
        return Ok(());
    }
    let errors = expression_errors(object);
    if errors.is_empty() {
        return Ok(());
    }
    let subject = Subject { group: &request.kind.group, resource: &request.kind.kind, name: request.name };
    Err(Status::invalid(subject, &errors))
}

fn expression_errors(policy: &Value) -> Vec<FieldError> {
    Compiled::read(policy).errors
}

impl Policies {
    /// Refuses what a policy denies. `object` is the new one; null on deletion.
    pub fn check(&self, request: &Request<'_>, object: &Value, kinds: Option<&Registry>) -> Result<(), Status> {
        let snapshot = request.snapshot;
        // A policy is never about policies: a wrong one could not be repaired.
        if snapshot.count(POLICIES) == 0 || request.kind.group == "admissionregistration.k8s.io" {
            return Ok(());
        }
        let bindings: Vec<Value> =
            snapshot.list(BINDINGS, "", None).filter_map(|(_, found)| read(found.json())).collect();
        let mut denial = None;
        for (name, policy) in snapshot.list(POLICIES, "", None) {
            let own: Vec<&Value> = bindings.iter().filter(|one| one["spec"]["policyName"] == **name).collect();
            if own.is_empty() || policy.header.deleting {
                continue;
            }
            let Some(compiled) = self.compiled(name, policy.revision, policy.json()) else { continue };
            if !matching::matches(&compiled.constraints, request, object) {
                continue;
            }
            for binding in own {
                let found = apply(&compiled, name, binding, request, object, kinds);
                denial = denial.or(found);
            }
        }
        match denial {
            None => Ok(()),
            Some(Denial { message, reason, code }) => {
                let mut status = Status::forbidden(request.subject(), &message);
                (status.reason, status.code) = (reason, code);
                if let Some(details) = &mut status.details {
                    details["causes"] = json!([{"message": message}]);
                }
                Err(status)
            }
        }
    }

    fn compiled(&self, name: &str, revision: u64, text: &[u8]) -> Option<Arc<Compiled>> {
        if let Some((known, compiled)) = self.compiled.lock().get(name)
            && *known == revision
        {
            return Some(compiled.clone());
        }
        // Not under the lock: others need not wait for what they may not need.
        let compiled = Arc::new(Compiled::read(&read(text)?));
        self.compiled.lock().insert(name.to_owned(), (revision, compiled.clone()));
        Some(compiled)
    }
}

fn read(text: &[u8]) -> Option<Value> {
    match serde_json::from_slice(text) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(%error, "a stored policy is damaged");
            None
        }
    }
}

/// Applies a policy where a binding says, and answers what denies the request.
fn apply(
    policy: &Compiled,
    name: &str,
    binding: &Value,
    request: &Request<'_>,
    object: &Value,
    kinds: Option<&Registry>,
) -> Option<Denial> {
    let spec = &binding["spec"];
    let bound_to = &spec["matchResources"];
    if bound_to.is_object() && !matching::matches(bound_to, request, object) {
        return None;
    }
    let binding_name = binding["metadata"]["name"].as_str().unwrap_or_default();
    let denies = |message: &str, reason: &str| {
        let message =
            format!("ValidatingAdmissionPolicy '{name}' with binding '{binding_name}' denied request: {message}");
        let (reason, code) = match reason {
            "Forbidden" => ("Forbidden", 403),
            "Unauthorized" => ("Unauthorized", 401),
            "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
            _ => ("Invalid", 422),
        };
        Denial { message, reason, code }
    };
    let params = match params(policy, spec, request, kinds) {
        Ok(params) => params,
        Err(why) if policy.fails => return Some(denies(&format!("failed to configure binding: {why}"), "")),
        Err(_) => return None,
    };
    let namespace = namespace(request.snapshot, request);
    let mut denial = None;
    for params in params {
        let input = Input {
            object: if request.operation == Verb::Delete { &Value::Null } else { object },
            old: request.old.unwrap_or(&Value::Null),
            request: &admission_request(request, object),
            namespace: &namespace,
            params: &params,
        };
        for Verdict { message, reason, is_error } in policy.violations(&input) {
            let actions = spec["validationActions"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for action in actions {
                match action {
                    "Deny" => denial = denial.or_else(|| Some(denies(&message, &reason))),
                    "Warn" => warnings::add(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{binding_name}': \
                        {message}"
                    )),
                    "Audit" => tracing::info!(
                        policy = name,
                        binding = binding_name,
                        message,
                        is_error,
                        "validation.policy.admission.k8s.io/validation_failure"
                    ),
                    _ => {}
                }
            }
        }
        for (key, value) in policy.audit_annotations(&input) {
            match value {
                Ok(value) => tracing::info!(policy = name, key, value, "audit annotation of an admission policy"),
                Err(why) if policy.fails => denial = denial.or_else(|| Some(denies(&why, ""))),
                Err(_) => {}
            }
        }
    }
    denial
}

/// The parameters that the policy is evaluated with, once for each.
fn params(
    policy: &Compiled,
    binding: &Value,
    request: &Request<'_>,
    kinds: Option<&Registry>,
) -> Result<Vec<Value>, String> {
    let reference = &binding["paramRef"];
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(vec![Value::Null]) };
    if !reference.is_object() {
        return Ok(vec![Value::Null]);
    }
    let known = kinds.and_then(|kinds| kinds.snapshot().by_api_version(api_version, kind));
    let Some(kind) = known else { return Err(format!("paramKind kind `{api_version}, Kind={kind}` not known")) };
    let Some(stored) = kind.stored() else { return Ok(vec![Value::Null]) };
    let namespace = match (kind.namespaced, reference["namespace"].as_str(), request.namespace) {
        (false, ..) => String::new(),
        (true, Some(namespace), _) | (true, None, Some(namespace)) => format!("{namespace}/"),
        (true, None, None) => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned()
            );
        }
    };
    let snapshot = request.snapshot;
    let resource = stored.resource();
    let found: Vec<Value> = match reference["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => snapshot
            .get(&resource, &format!("{namespace}{name}"))
            .and_then(|found| read(found.json()))
            .into_iter()
            .collect(),
        None => {
            let all = snapshot.list(&resource, &namespace, None).filter_map(|(_, found)| read(found.json()));
            all.filter(|found| label_selector::selects(&reference["selector"], &found["metadata"]["labels"])).collect()
        }
    };
    match (found.is_empty(), reference["parameterNotFoundAction"].as_str()) {
        (false, _) => Ok(found),
        (true, Some("Allow")) => Ok(Vec::new()),
        (true, _) => Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned()),
    }
}

/// What expressions see of the object's namespace; null where it has none.
fn namespace(snapshot: &Snapshot, request: &Request<'_>) -> Value {
    let name = request.namespace.unwrap_or_default();
    let Some(found) = snapshot.get(super::namespace::RESOURCE, name).and_then(|found| read(found.json())) else {
        return Value::Null;
    };
    let mut seen = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {}, "spec": {}, "status": {}});
    for field in [
        "name",
        "generateName",
        "namespace",
        "labels",
        "annotations",
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "finalizers",
    ] {
        if !found["metadata"][field].is_null() {
            seen["metadata"][field] = found["metadata"][field].clone();
        }
    }
    for (part, field) in [("spec", "finalizers"), ("status", "phase")] {
        if !found[part][field].is_null() {
            seen[part][field] = found[part][field].clone();
        }
    }
    seen
}

/// The `request` of expressions: an AdmissionRequest.
fn admission_request(request: &Request<'_>, object: &Value) -> Value {
    let kind = request.kind;
    let operation = match request.operation {
        Verb::Create => "CREATE",
        Verb::Delete => "DELETE",
        _ => "UPDATE",
    };
    let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let gvr = json!({"group": kind.group, "version": kind.version, "resource": kind.plural});
    let name = match request.name {
        "" => object["metadata"]["name"].as_str().unwrap_or_default(),
        name => name,
    };
    let mut made = json!({"kind": gvk, "resource": gvr, "requestKind": gvk, "requestResource": gvr, "name": name,
        "operation": operation, "userInfo": {"username": request.identity.name, "groups": request.identity.groups},
        "dryRun": false, "options": {}});
    if let Some(namespace) = request.namespace {
        made["namespace"] = namespace.into();
    }
    if let Some(subresource) = request.subresource {
        made["subResource"] = subresource.into();
        made["requestSubResource"] = subresource.into();
    }
    made
}

#[cfg(test)]
mod tests;
