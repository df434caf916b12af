//! Begins the audit of a request: by the attributes that the authoriser sees, but for the user who was authenticated,
//! not whom they impersonate.

use http::request::Parts;

use super::attributes::{Attributes, Resource};
use crate::{
    audit::{Audit, AuditAttributes, AuditTarget, AuditedRequest, RequestFacts, source_ips},
    identity::Identity,
    request::{PeerAddress, RequestInfo, audit_id::AuditId},
};

/// The audit of a request, if the policy wants it. What cannot be read (`info`) is audited by its path.
pub fn begin(
    audit: &Audit,
    (parts, id): (&Parts, &AuditId),
    info: Option<&RequestInfo>,
    user: Option<&Identity>,
) -> Option<AuditedRequest> {
    let attributes = info.map_or_else(
        || Attributes::Path { verb: parts.method.as_str().to_ascii_lowercase(), path: parts.uri.path() },
        Attributes::of,
    );
    let (verb, target) = match &attributes {
        Attributes::Path { verb, path } => (verb.as_str(), AuditTarget::Path(path)),
        Attributes::Resource(Resource { verb, group, version, namespace, resource, subresource, name, .. }) => {
            (*verb, AuditTarget::Resource { group, version, resource, subresource, namespace, name })
        }
    };
    audit.begin(&AuditAttributes { user, verb, target }, || RequestFacts {
        audit_id: id.to_string(),
        uri: &parts.uri,
        user_agent: info.map_or("", |info| &info.user_agent),
        source_ips: source_ips(&parts.headers, parts.extensions.get::<PeerAddress>().map(|peer| peer.0)),
    })
}
