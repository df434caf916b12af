//! The right that streams to pods need beside that to their verb: to create them.
//!
//! A WebSocket is asked for by GET, and what it does is no reading. Source: `ensureAuthorizedForVerb` of
//! `pkg/registry/core/pod/rest`, by `AuthorizePodWebsocketUpgradeCreatePermission`, which Kubernetes 1.35 has on.

use super::{
    attributes::Attributes,
    authorizer::{Authorizer, Verdict},
};
use crate::{
    identity::Identity,
    request::{RequestInfo, Verb, pod_stream::PodStream},
    status::{Status, Subject},
};

/// Refuses who may get a stream to a pod, but not create it. `info` is of a request that is allowed otherwise.
pub async fn check(authorizer: &Authorizer, identity: &Identity, info: &RequestInfo) -> Result<(), Status> {
    let Some(path) = info.resource() else { return Ok(()) };
    if PodStream::of(path).is_none() || info.verb == Verb::Create {
        return Ok(());
    }
    let created = RequestInfo { verb: Verb::Create, ..info.clone() };
    match authorizer.decide(identity, &Attributes::of(&created)).await {
        Ok(Verdict::Allowed { .. }) => Ok(()),
        Ok(Verdict::Refused { error: Some(error), .. }) => Err(Status::internal(error)),
        Ok(Verdict::Refused { reason, .. }) => {
            let name = path.name.as_deref().unwrap_or_default();
            Err(Status::forbidden(Subject { group: &path.group, resource: &path.resource, name }, &reason))
        }
        Err(error) => Err(error.to_status()),
    }
}
