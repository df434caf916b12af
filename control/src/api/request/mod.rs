//! One request about objects as the handlers see it: what was read of it, and the kind that it names.

pub mod body;
pub mod configuration;
pub mod target;

use std::{ops::Deref, sync::Arc};

use axum::body::Body;
use bytes::Bytes;

use self::target::Target;
use super::Status;
use crate::{
    deadline,
    field_management::manager_name,
    identity::Identity,
    kinds::{Kinds, Storage},
    request::{
        MAX_BODY, RequestInfo, Verb,
        accept::{self, Accepted, Endpoint},
    },
};

/// A request about objects, with its body still unread. Options and selectors are those of its [`RequestInfo`].
pub struct Call {
    /// All that was read of the request.
    pub info: Arc<RequestInfo>,
    /// What it names.
    pub target: Target,
    /// Who asks.
    pub identity: Identity,
    /// The form and the encoding of the answer.
    pub accepted: Accepted,
    /// To whom the fields belong that it changes: see [`manager_name`].
    pub manager: String,
}

impl Call {
    /// Looks up what the request names. A 404 where nothing of the kind is served, a 406 where the client takes no form
    /// of it.
    pub fn of(info: Arc<RequestInfo>, kinds: &Kinds) -> Result<Self, Status> {
        let target = Target::of(info.resource().ok_or_else(Status::unknown_path)?, kinds)?;
        let identity = info.user()?.clone();
        // An agent's stream has the form that the agent gives it.
        let by_agent = target.subresource.is_some_and(|subresource| subresource.by_agent);
        let endpoint = Endpoint::Objects {
            protobuf: target.kind.is_built_in(),
            table: !matches!(target.kind.storage, Storage::Virtual),
        };
        let accepted = match info.verb {
            _ if by_agent => Accepted::default(),
            Verb::Watch => accept::negotiate_watch(&info.accept, endpoint)?,
            _ => accept::negotiate(&info.accept, endpoint)?,
        };
        let mut parameters = info.query.parameters.iter();
        let field_manager = parameters.find(|(name, _)| name == "fieldManager").map(|(_, value)| value.as_str());
        let manager = manager_name::of(field_manager, &info.user_agent);
        Ok(Self { info, target, identity, accepted, manager })
    }
}

impl Deref for Call {
    type Target = RequestInfo;

    fn deref(&self) -> &RequestInfo {
        &self.info
    }
}

/// Reads a whole body, which has as long to come as its request may take afterwards: one that never ends must not keep
/// its seat.
pub async fn read(body: Body) -> Result<Bytes, Status> {
    let whole = tokio::time::timeout(deadline::LONGEST, axum::body::to_bytes(body, MAX_BODY)).await;
    let whole = whole.map_err(|_| Status::timeout("the body of the request did not come in time"))?;
    whole.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        while let Some(e) = source {
            if e.is::<http_body_util::LengthLimitError>() {
                return Status::too_large(format!("Request entity too large: limit is {MAX_BODY}"));
            }
            source = e.source();
        }
        Status::bad_request(format!("cannot read the body: {error}"))
    })
}
