//! Whether a claim may reach devices as an administrator does, past what others have claimed (KEP 5018): only in
//! namespaces that are labelled for it.

use serde_json::Value;

use super::namespace;
use crate::{
    kinds::FieldError,
    request::WriteRequest,
    status::{Status, Subject},
};

const LABEL: &str = "resource.kubernetes.io/admin-access";

/// Refuses a claim, or a template of claims, that asks for what its namespace does not allow.
pub fn refuse(request: &WriteRequest<'_>, object: &Value) -> Result<(), Status> {
    let spec = match (&*request.kind.group, &*request.kind.kind) {
        ("resource.k8s.io", "ResourceClaim") => &object["spec"],
        ("resource.k8s.io", "ResourceClaimTemplate") => &object["spec"]["spec"],
        _ => return Ok(()),
    };
    // What was granted stays: neither a spec nor an allocation changes.
    let path = match request.old {
        None => requested(spec),
        Some(old) => allocated(object).filter(|_| allocated(old).is_none()),
    };
    let Some(path) = path.filter(|_| !is_allowed(request)) else { return Ok(()) };
    let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
    let subject = Subject { group: &request.kind.group, resource: &request.kind.kind, name: request.name };
    Err(Status::invalid(subject, &[FieldError::forbidden(path, &why)]))
}

/// The path of the first request for access, in Kubernetes' words: without the step `exactly`, and for a template as
/// for a claim.
fn requested(spec: &Value) -> Option<String> {
    let requests = spec["devices"]["requests"].as_array()?;
    let at = requests.iter().position(|request| request["exactly"]["adminAccess"] == true)?;
    Some(format!("spec.devices.requests[{at}].adminAccess"))
}

/// The path of the first device that was allocated with access.
fn allocated(claim: &Value) -> Option<String> {
    let results = claim["status"]["allocation"]["devices"]["results"].as_array()?;
    let at = results.iter().position(|result| result["adminAccess"] == true)?;
    Some(format!("status.allocation.devices.results[{at}].adminAccess"))
}

fn is_allowed(request: &WriteRequest<'_>) -> bool {
    let found = request.namespace.and_then(|name| request.snapshot.get(namespace::RESOURCE, name));
    found.is_some_and(|found| found.header().label(LABEL) == Some("true"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn access_is_asked_for_in_one_place_and_granted_in_another() {
        let asks = json!({"devices": {"requests": [{"firstAvailable": []}, {"exactly": {"adminAccess": true}}]}});
        assert_eq!(requested(&asks).as_deref(), Some("spec.devices.requests[1].adminAccess"));
        assert_eq!(requested(&json!({"devices": {"requests": [{"exactly": {"adminAccess": false}}]}})), None);
        let granted = json!({"status": {"allocation": {"devices": {"results": [{"adminAccess": true}]}}}});
        assert_eq!(allocated(&granted).as_deref(), Some("status.allocation.devices.results[0].adminAccess"));
        assert_eq!(allocated(&json!({})), None);
    }
}
