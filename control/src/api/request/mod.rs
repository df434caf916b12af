//! One request about objects as the handlers see it: what was read of it, and the kind that it names.

pub mod body;
pub mod configuration;
pub mod target;

use std::{ops::Deref, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;

use self::target::RequestTarget;
use super::{Status, Subject};
use crate::{
    deadline,
    field_management::manager_name,
    flow_control::seat::Seat,
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
    pub target: RequestTarget,
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
        let path = info.resource().ok_or_else(Status::unknown_path)?;
        let target = RequestTarget::of(path, kinds)?;
        // kube-apiserver deletes in all namespaces where a client names an empty one. Here that one is read alone.
        if path.empty_namespace && !matches!(info.verb, Verb::List | Verb::Watch) {
            let kind = &target.kind;
            return Err(Status::method_not_allowed(Subject { group: &kind.group, resource: &kind.plural, name: "" }));
        }
        let identity = info.user()?.clone();
        // An agent's stream has the form that the agent gives it.
        let by_agent = target.subresource.is_some_and(|subresource| subresource.by_agent());
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
/// its connection. One that is withheld has no seat of those that requests have, and what has come of it counts as its
/// user's; a request from within this process has no seat.
pub async fn read(body: Body, seat: Option<&Seat>) -> Result<Bytes, Status> {
    let whole = async {
        let whole = tokio::time::timeout(deadline::LONGEST, collect(body, seat)).await;
        whole.unwrap_or_else(|_| Err(Status::timeout("the body of the request did not come in time")))
    };
    match seat {
        Some(seat) => seat.read(whole).await,
        None => whole.await,
    }
}

/// The first room for a body. It is doubled as long as the body goes on.
const FIRST_ROOM: usize = 16 << 10;

/// The bytes of a body, copied into one place: a client that sends them one by one takes no more memory for that.
async fn collect(mut body: Body, seat: Option<&Seat>) -> Result<Bytes, Status> {
    let mut whole = Vec::new();
    let mut room: usize = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("cannot read the body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = whole.len().saturating_add(data.len());
        if length > MAX_BODY {
            return Err(Status::too_large(format!("Request entity too large: limit is {MAX_BODY}")));
        }
        if length > room {
            let more = length.max(room.saturating_mul(2)).clamp(FIRST_ROOM, MAX_BODY).saturating_sub(room);
            if let Some(seat) = seat {
                seat.keep_for_body(more)?;
            }
            room = room.saturating_add(more);
            whole.reserve_exact(room.saturating_sub(whole.len()));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::{flow_control::in_flight::InFlight, request::tests::info};

    #[tokio::test]
    async fn a_body_is_read_whole_up_to_a_size() {
        let pieces = |count: usize| {
            let piece = || Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1 << 10]));
            Body::from_stream(stream::iter(std::iter::repeat_with(piece).take(count)))
        };
        assert_eq!(read(pieces(3 << 10), None).await.unwrap().len(), MAX_BODY);
        assert_eq!(read(pieces((3 << 10) + 1), None).await.unwrap_err().code, 413);
        assert_eq!(read(Body::empty(), None).await.unwrap(), Bytes::new());
    }

    #[tokio::test]
    async fn bodies_of_one_user_take_a_part_of_the_memory() {
        let limits = InFlight::new(0, 0);
        let enter = |name: &str| {
            let user = Identity::authenticated(name.to_owned(), Vec::new());
            limits.enter(&user, &info("POST", "/api/v1/namespaces/a/pods")).unwrap()
        };
        let body = || Body::from(vec![b'x'; MAX_BODY]);
        let mut seats = Vec::new();
        let refused = loop {
            let seat = enter("joe");
            match read(body(), Some(&seat)).await {
                Ok(_) => seats.push(seat),
                Err(status) => break status,
            }
        };
        assert_eq!(refused.code, 429);
        assert!((10..100).contains(&seats.len()), "{}", seats.len());
        assert!(read(body(), Some(&enter("ann"))).await.is_ok());
        drop(seats);
        assert!(read(body(), Some(&enter("joe"))).await.is_ok());
    }
}
