//! Writes the authenticated user into a CertificateSigningRequest, over whatever the client sent in those fields.

use serde_json::{Value, json};

use crate::{
    identity::Identity,
    request::{Verb, WriteRequest},
};

/// Sets `spec.username`, `spec.groups`, `spec.uid` and `spec.extra` to the authenticated requester.
fn set_requester(object: &mut Value, identity: &Identity) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in ["uid", "extra"] {
        spec.shift_remove(field);
    }
    spec.insert("username".into(), json!(identity.name));
    spec.insert("groups".into(), json!(identity.groups));
    if !identity.uid.is_empty() {
        spec.insert("uid".into(), json!(identity.uid));
    }
    if !identity.extra.is_empty() {
        spec.insert("extra".into(), json!(identity.extra));
    }
}

/// Sets them in a new request that is to be stored: neither its sender nor a webhook says who sent it.
///
/// Source: `PrepareForCreate` of the registry's strategy, which runs after all mutation.
pub fn prepare(request: &WriteRequest<'_>, object: &mut Value) {
    let kind = request.kind;
    let is_request = (&*kind.group, &*kind.kind) == ("certificates.k8s.io", "CertificateSigningRequest");
    if is_request && request.operation == Verb::Create && request.subresource.is_none() {
        set_requester(object, request.identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requester_cannot_pass_for_another() {
        let mut object = json!({"spec": {"username": "admin", "groups": ["system:masters"], "uid": "1"}});
        set_requester(
            &mut object,
            &Identity { name: "mallory".into(), groups: vec!["g".into()], ..Identity::default() },
        );
        assert_eq!(object["spec"], json!({"username": "mallory", "groups": ["g"]}));
    }
}
