//! The variable `authorizer` of expressions: what the user of the request may do, or a service account.

use std::rc::Rc;

use super::attributes::Attributes;
use crate::{
    auth::{
        attributes::{self as asked, Resource},
        authorizer::{Authorizer, Verdict},
    },
    cel::{
        Value as Cel,
        library::authz::{Authorize, Authz, Check, Decision, ResourceCheck},
        value::Opaque,
    },
    identity::Identity,
    request::selector::FieldSelector,
};

/// Asks the authoriser of the API on behalf of one user.
struct Access {
    authorizer: Authorizer,
    identity: Identity,
}

/// The variable for a request.
pub fn authorizer<'v>(attributes: &Attributes<'_>) -> Cel<'v> {
    let access = Access { authorizer: attributes.authorizer.clone(), identity: attributes.identity.clone() };
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let request = ResourceCheck {
        group: attributes.served.group.to_string(),
        resource: attributes.served.plural.to_string(),
        subresource: text(attributes.subresource),
        namespace: text(attributes.namespace()),
        name: attributes.name.to_owned(),
        field_selector: String::new(),
    };
    Cel::Opaque(Opaque::Authz(Authz::new(Rc::new(access), request)))
}

impl Authorize for Access {
    fn decide(&self, service_account: Option<&(String, String)>, check: &Check) -> Decision {
        let account = service_account.map(|(namespace, name)| Identity::service_account(namespace, name));
        let requester = &self.identity;
        let identity = account.as_ref().unwrap_or(requester);
        let decided = match check {
            Check::Path { verb, path } => {
                let asked = asked::Attributes::Path { verb: verb.clone(), path };
                self.authorizer.decide_here(requester, identity, &asked)
            }
            Check::Resource { verb, of } => {
                let fields: Option<FieldSelector> =
                    Some(&of.field_selector).filter(|text| !text.is_empty()).and_then(|text| text.parse().ok());
                self.authorizer.decide_here(
                    requester,
                    identity,
                    &asked::Attributes::Resource(Resource {
                        verb,
                        group: &of.group,
                        version: "*",
                        namespace: &of.namespace,
                        resource: &of.resource,
                        subresource: &of.subresource,
                        name: &of.name,
                        fields: fields.as_ref(),
                        labels: None,
                    }),
                )
            }
        };
        match decided {
            Ok(Verdict::Allowed { reason }) => Decision { allowed: true, reason, error: String::new() },
            Ok(Verdict::Refused { reason, error, .. }) => {
                Decision { allowed: false, reason, error: error.unwrap_or_default() }
            }
            Err(error) => Decision { allowed: false, reason: String::new(), error: error.to_string() },
        }
    }
}
