//! CertificateApproval and CertificateSigning: whether somebody may approve or sign for a signer. What a
//! CertificateSigningRequest becomes is a client's identity.
//!
//! Source: `plugin/pkg/admission/certificates`, whose words these are.

use futures::FutureExt;
use serde_json::Value;

use super::plugins::{AdmissionContext, Plugin, Validate};
use crate::{
    admission_plugins::PluginName,
    auth::{
        attributes::{Attributes, Resource},
        authorizer::{AuthorizationError, Authorizer, Verdict},
    },
    identity::MASTERS,
    request::WriteRequest,
    status::Status,
};

/// Who writes through `/approval` may `approve` for the signer of the request.
pub static APPROVAL_PLUGIN: Plugin = Plugin {
    validate: Some(Validate::Waiting(|context, new| validate(context, "approval", new).boxed())),
    ..Plugin::named(PluginName::CertificateApproval)
};

/// Who writes another status may `sign` for the signer of the request.
pub static SIGNING_PLUGIN: Plugin = Plugin {
    validate: Some(Validate::Waiting(|context, new| validate(context, "status", new).boxed())),
    ..Plugin::named(PluginName::CertificateSigning)
};

const GROUP: &str = "certificates.k8s.io";

async fn validate(context: &AdmissionContext<'_>, subresource: &str, new: &Value) -> Result<(), Status> {
    match context.request.subresource == Some(subresource) {
        true => refuse(context.authorizer, context.request, new).await,
        false => Ok(()),
    }
}

/// Refuses a write through `/approval`, and a status that says something else, by who may not give it for the request's
/// signer. All other writes pass.
async fn refuse(authorizer: &Authorizer, request: &WriteRequest<'_>, new: &Value) -> Result<(), Status> {
    let is_request = request.kind.group == GROUP && request.kind.plural == "certificatesigningrequests";
    let Some(old) = request.old.filter(|_| is_request && !request.identity.is_in(MASTERS)) else { return Ok(()) };
    let verb = match request.subresource {
        Some("approval") => "approve",
        Some("status") if old["status"] != new["status"] => "sign",
        _ => return Ok(()),
    };
    let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
    if may(authorizer, request, verb, signer).await.map_err(|error| error.to_status())? {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(Status::forbidden(request.subject(), &why))
}

/// By the signer's name, or by `DOMAIN/*`.
async fn may(
    authorizer: &Authorizer,
    request: &WriteRequest<'_>,
    verb: &str,
    signer: &str,
) -> Result<bool, AuthorizationError> {
    let domain = signer.split_once('/').map_or(String::new(), |(domain, _)| format!("{domain}/*"));
    for name in [signer, &domain] {
        let asked = Resource { verb, group: GROUP, version: "v1", resource: "signers", name, ..Resource::default() };
        let verdict = authorizer.decide(request.identity, &Attributes::Resource(asked)).await?;
        if !name.is_empty() && matches!(verdict, Verdict::Allowed { .. }) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        api::open_store,
        identity::Identity,
        kinds::{Kinds, Registry},
        request::Verb,
        store::Store,
    };

    #[test]
    fn only_who_may_act_for_the_signer_approves_and_signs() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(open_store(&dir.path().join("s"), &Registry::default()).unwrap());
        let (snapshot, authorizer) = (store.snapshot(), Authorizer::new(store));
        let kind = Kinds::built_in().by_path(GROUP, "v1", "certificatesigningrequests").unwrap();
        let old = json!({"spec": {"signerName": "kubernetes.io/kube-apiserver-client"}, "status": {}});
        let mut new = old.clone();
        new["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let asked = |identity: &Identity, subresource: Option<&'static str>, new: &Value| {
            let request = WriteRequest {
                operation: Verb::Update,
                kind: &kind,
                group: GROUP,
                namespace: None,
                name: "a",
                name_in_path: Some("a"),
                subresource,
                old: Some(&old),
                identity,
                snapshot: &snapshot,
            };
            // Without a webhook nothing is waited for.
            refuse(&authorizer, &request, new).now_or_never().unwrap()
        };
        let (admin, jane) = (Identity::control("test"), Identity::authenticated("jane".into(), Vec::new()));
        for (subresource, verb) in [("approval", "approve"), ("status", "sign")] {
            assert!(asked(&admin, Some(subresource), &new).is_ok());
            let refused = asked(&jane, Some(subresource), &new).unwrap_err();
            assert_eq!(refused.code, 403);
            assert!(refused.message.contains(&format!("user not permitted to {verb} requests")), "{}", refused.message);
            let gives_nothing = asked(&jane, Some(subresource), &old);
            assert_eq!(gives_nothing.is_ok(), subresource == "status", "{subresource}");
        }
        assert!(asked(&jane, None, &old).is_ok());
    }
}
