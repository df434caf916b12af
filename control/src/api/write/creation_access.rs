//! Who creates an object by a `PUT` or an apply needs the verb `create`, beside that of the request.

use crate::{
    api::{Api, Status, request::Call},
    auth::{
        attributes::{Attributes, Resource},
        authorize,
        authorizer::Verdict,
    },
    request::Verb,
};

/// Refuses the creation of the object that the path names. A `POST` passes: the gate asked about it.
pub async fn refuse(api: &Api, call: &Call) -> Result<(), Status> {
    if call.verb == Verb::Create {
        return Ok(());
    }
    let kind = &call.target.kind;
    let attributes = Attributes::Resource(Resource {
        verb: Verb::Create.as_str(),
        group: &kind.group,
        version: &kind.version,
        namespace: call.target.namespace.as_deref().unwrap_or_default(),
        resource: &kind.plural,
        subresource: "",
        name: call.target.name.as_deref().unwrap_or_default(),
        fields: None,
        labels: None,
    });
    match api.authorizer().decide(&call.identity, &attributes).await {
        Ok(Verdict::Allowed { .. }) => Ok(()),
        Ok(Verdict::Refused { error: Some(error), .. }) => Err(Status::internal(error)),
        Ok(Verdict::Refused { reason, .. }) => Err(authorize::forbidden(&call.identity, &attributes, &reason)),
        Err(error) => Err(error.to_status()),
    }
}
