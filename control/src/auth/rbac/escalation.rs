//! Whether a role or binding may be written: nobody gives what they do not have.
//!
//! Who has all the rules of a role may write it, or bind it to anybody. Others need the verb `escalate` on the role, or
//! `bind` on the role that they bind. The words are Kubernetes'.

use serde_json::Value;

use super::{ALL, Policy, RoleReference, Rule, covers};
use crate::{
    auth::{
        attributes::{Attributes, Resource},
        authorizer::{Authorizer, Verdict},
    },
    identity::MASTERS,
    kinds::rbac::GROUP,
    request::WriteRequest,
    status::{Status, Subject},
};

/// Refuses the write of a role or binding that gives more than its writer has. `new` is what is to be stored; all other
/// kinds pass.
pub async fn refuse(authorizer: &Authorizer, request: &WriteRequest<'_>, new: &Value) -> Result<(), Status> {
    if request.kind.group != GROUP || request.identity.is_in(MASTERS) {
        return Ok(());
    }
    if request.old.is_some_and(|old| changes_garbage_collection_only(new, old)) {
        return Ok(());
    }
    // In boxes: most writes need no room for this.
    match &*request.kind.plural {
        "roles" | "clusterroles" if Box::pin(may_escalate(authorizer, request)).await => Ok(()),
        "roles" | "clusterroles" => refuse_role(&authorizer.rbac().policy(), request, new),
        "rolebindings" | "clusterrolebindings" => {
            let role = RoleReference::of(new);
            // Another kind is refused by validation, in its words.
            let known = matches!(role.kind.as_str(), "Role" | "ClusterRole");
            if !known || Box::pin(may_bind(authorizer, request, &role)).await {
                return Ok(());
            }
            refuse_binding(&authorizer.rbac().policy(), request, new, &role)
        }
        _ => Ok(()),
    }
}

/// By the name in the path, as in Kubernetes: one that is created by POST has none there, one that is applied has.
async fn may_escalate(authorizer: &Authorizer, request: &WriteRequest<'_>) -> bool {
    let (resource, name) = (&*request.kind.plural, request.name_in_path.unwrap_or_default());
    may(authorizer, request, Resource { verb: "escalate", resource, name, ..Resource::default() }).await
}

/// By the name of the role that is bound.
async fn may_bind(authorizer: &Authorizer, request: &WriteRequest<'_>, role: &RoleReference) -> bool {
    let (resource, name) = (&*role.resource(), &*role.name);
    may(authorizer, request, Resource { verb: "bind", resource, name, ..Resource::default() }).await
}

/// Whether those who authorise allow it: RBAC, or whoever stands before or after it.
async fn may(authorizer: &Authorizer, request: &WriteRequest<'_>, asked: Resource<'_>) -> bool {
    let namespace = request.namespace.unwrap_or_default();
    let asked = Attributes::Resource(Resource { group: GROUP, version: ALL, namespace, ..asked });
    match authorizer.decide(request.identity, &asked).await {
        Ok(verdict) => matches!(verdict, Verdict::Allowed { .. }),
        Err(error) => {
            let cause: &dyn std::error::Error = &error;
            tracing::warn!(error = cause, user = request.identity.name, "cannot tell who may escalate or bind roles");
            false
        }
    }
}

/// Most rules that a refusal names.
const MOST_SHOWN: usize = 200;

fn refuse_role(policy: &Policy, request: &WriteRequest<'_>, new: &Value) -> Result<(), Status> {
    refuse_rules(policy, request, new, &Rule::all_of(new))?;
    let gathers = |role: &Value| {
        let selectors = &role["aggregationRule"]["clusterRoleSelectors"];
        selectors.as_array().is_some_and(|selectors| !selectors.is_empty())
    };
    // It can gather any rule, now and later.
    if request.kind.plural == "clusterroles" && (gathers(new) || request.old.is_some_and(gathers)) {
        let all = || vec![ALL.to_owned()];
        let everything = [
            Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
            Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
        ];
        let why = "must have cluster-admin privileges to use the aggregationRule";
        refuse_rules(policy, request, new, &everything).map_err(|_| Status::forbidden(request.subject(), why))?;
    }
    Ok(())
}

fn refuse_binding(
    policy: &Policy,
    request: &WriteRequest<'_>,
    new: &Value,
    role: &RoleReference,
) -> Result<(), Status> {
    let namespace = request.namespace.unwrap_or_default();
    let Some(rules) = policy.rules_of_role(role, namespace) else {
        if namespace.is_empty() && role.kind == "Role" {
            return Err(Status::bad_request("Namespace parameter required."));
        }
        // Kubernetes, too, says so of the binding, by the role's name.
        return Err(Status::not_found(Subject { name: &role.name, ..request.subject() }));
    };
    refuse_rules(policy, request, new, rules)
}

/// Refuses rules that the requester does not have. `new` is the role or binding that would give them.
fn refuse_rules(policy: &Policy, request: &WriteRequest<'_>, new: &Value, rules: &[Rule]) -> Result<(), Status> {
    let identity = request.identity;
    let (own, errors) = policy.rules_of(identity, request.namespace.unwrap_or_default());
    let subject = Subject { name: if is_generated(new) { "" } else { request.name }, ..request.subject() };
    let missing = covers(&own, rules).map_err(|error| Status::forbidden(subject, &error.to_string()))?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut missing: Vec<String> = missing.iter().map(Rule::to_string).collect();
    missing.sort();
    missing.dedup();
    let more = missing.len().saturating_sub(MOST_SHOWN);
    missing.truncate(MOST_SHOWN);
    if more > 0 {
        missing.push(format!("and {more} more"));
    }
    let groups = identity.groups.iter().map(|group| format!("{group:?}")).collect::<Vec<_>>().join(" ");
    let mut why = format!(
        "user {:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{}",
        identity.name,
        missing.join("\n")
    );
    if let Some(errors) = errors {
        why.push_str(&format!("; resolution errors: [{errors}]"));
    }
    Err(Status::forbidden(subject, &why))
}

/// Whether the object has a name that was made for it: nobody has heard of that yet.
fn is_generated(object: &Value) -> bool {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let (prefix, name) = (text("generateName"), text("name"));
    !prefix.is_empty() && name.len() == prefix.len().saturating_add(GENERATED) && name.starts_with(prefix)
}

/// So many characters are added to a prefix.
const GENERATED: usize = 5;

/// Whether nothing but what the garbage collector changes would change.
fn changes_garbage_collection_only(new: &Value, old: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["ownerReferences", "finalizers", "selfLink", "managedFields", "resourceVersion"] {
                metadata.shift_remove(field);
            }
        }
        object
    };
    without(new) == without(old)
}
