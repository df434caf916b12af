//! Whether somebody may point an admission policy, or its binding, at parameters: only at what they could read
//! themselves, for a policy shows what it reads. The words are Kubernetes'.

use serde_json::Value;

use super::{
    attributes::{Attributes, Resource},
    authorizer::{Authorizer, Verdict},
    rbac::ALL,
};
use crate::{
    identity::{Identity, MASTERS},
    kinds::{FieldError, Kinds, api_version::group_and_version},
    request::WriteRequest,
    status::{Status, Subject},
};

const GROUP: &str = "admissionregistration.k8s.io";
const VALIDATING: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
const MUTATING: &str = "mutatingadmissionpolicies.admissionregistration.k8s.io";

/// Refuses a policy or binding whose parameters its writer could not read. All other kinds pass.
pub fn refuse(authorizer: &Authorizer, kinds: &Kinds, request: &WriteRequest<'_>, new: &Value) -> Result<(), Status> {
    if request.kind.group != GROUP || request.identity.is_in(MASTERS) {
        return Ok(());
    }
    let refused = match &*request.kind.plural {
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => policy(authorizer, kinds, request, new)?,
        "validatingadmissionpolicybindings" => binding(authorizer, kinds, request, new, VALIDATING)?,
        "mutatingadmissionpolicybindings" => binding(authorizer, kinds, request, new, MUTATING)?,
        _ => None,
    };
    let Some(error) = refused else { return Ok(()) };
    let subject = Subject { group: GROUP, resource: &request.kind.kind, name: request.name };
    Err(Status::invalid(subject, &[error]))
}

fn policy(
    authorizer: &Authorizer,
    kinds: &Kinds,
    request: &WriteRequest<'_>,
    new: &Value,
) -> Result<Option<FieldError>, Status> {
    let param_kind = &new["spec"]["paramKind"];
    if !param_kind.is_object() || request.old.is_some_and(|old| old["spec"]["paramKind"] == *param_kind) {
        return Ok(None);
    }
    let params = Params::of(param_kind, kinds);
    let asked = Resource { verb: "get", namespace: ALL, name: ALL, ..params.resource() };
    if allows(authorizer, request.identity, asked)? {
        return Ok(None);
    }
    let why = format!(
        "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
        shown(request.identity),
        params.kind,
        params.api_version
    );
    Ok(Some(FieldError::forbidden("spec.paramKind", &why)))
}

fn binding(
    authorizer: &Authorizer,
    kinds: &Kinds,
    request: &WriteRequest<'_>,
    new: &Value,
    policies: &str,
) -> Result<Option<FieldError>, Status> {
    let (spec, reference) = (&new["spec"], &new["spec"]["paramRef"]);
    let same = |old: &Value| ["paramRef", "policyName"].iter().all(|field| old["spec"][field] == spec[field]);
    if !reference.is_object() || request.old.is_some_and(same) {
        return Ok(None);
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let name = spec["policyName"].as_str().unwrap_or_default();
    let stored = request.snapshot.get(policies, name);
    let policy: Option<Value> = stored.and_then(|policy| serde_json::from_slice(&policy.json()).ok());
    let param_kind = policy.as_ref().map(|policy| &policy["spec"]["paramKind"]).filter(|kind| kind.is_object());
    let params = param_kind.map_or(Params::ANY, |kind| Params::of(kind, kinds));
    let verb = if text("name").is_empty() { "list" } else { "get" };
    let asked = Resource { verb, namespace: text("namespace"), name: text("name"), ..params.resource() };
    if allows(authorizer, request.identity, asked)? {
        return Ok(None);
    }
    let user = shown(request.identity);
    let why = match &policy {
        None => format!(
            "unable to get policy {name} to determine minimum required permissions and user {user} does not have \
             \"{verb}\" permission for all groups, versions and resources"
        ),
        Some(_) => {
            format!("user {user} does not have \"{verb}\" permission on the object referenced by paramRef")
        }
    };
    Ok(Some(FieldError::forbidden("spec.paramRef", &why)))
}

/// The kind of parameters, and how requests name it: `*` where that is not known.
struct Params<'a> {
    api_version: &'a str,
    kind: &'a str,
    group: &'a str,
    version: &'a str,
    plural: String,
}

impl<'a> Params<'a> {
    const ANY: Self = Self { api_version: "", kind: "", group: ALL, version: ALL, plural: String::new() };

    fn of(param_kind: &'a Value, kinds: &Kinds) -> Self {
        let text = |field: &str| param_kind[field].as_str().unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = group_and_version(api_version);
        let plural = kinds.by_gvk(group, version, kind).map(|kind| kind.plural.to_string()).unwrap_or_default();
        Self { api_version, kind, group, version, plural }
    }

    fn resource(&self) -> Resource<'_> {
        let resource = if self.plural.is_empty() { ALL } else { &self.plural };
        Resource { group: self.group, version: self.version, resource, ..Resource::default() }
    }
}

/// What cannot be looked up is neither allowed nor refused.
fn allows(authorizer: &Authorizer, identity: &Identity, asked: Resource<'_>) -> Result<bool, Status> {
    match authorizer.decide_here(identity, identity, &Attributes::Resource(asked)) {
        Ok(verdict) => Ok(matches!(verdict, Verdict::Allowed { .. })),
        Err(error) => Err(error.to_status()),
    }
}

/// A user as Go prints one.
fn shown(identity: &Identity) -> String {
    format!("&{{{}  [{}] map[]}}", identity.name, identity.groups.join(" "))
}
