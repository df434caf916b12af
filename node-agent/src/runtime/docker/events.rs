//! Docker's events as the runtime's. Only ends are asked for: what starts, the agent started itself.
//! A broken stream ends; it is never repaired here, since events were missed by then.

use std::collections::HashMap;

use bollard::{models::EventMessage, query_parameters::EventsOptions};
use futures::{StreamExt, stream::BoxStream};

use crate::runtime::{ContainerOwner, Event};

/// Ends and removals of this node's containers, from now on.
pub(super) fn events(client: &bollard::Docker, mut filters: HashMap<String, Vec<String>>) -> BoxStream<'static, Event> {
    filters.insert("type".to_owned(), vec!["container".to_owned()]);
    filters.insert("event".to_owned(), ["die", "destroy"].map(str::to_owned).to_vec());
    let options = EventsOptions { filters: Some(filters), ..Default::default() };
    client
        .events(Some(options))
        .take_while(|event| futures::future::ready(event.is_ok()))
        .filter_map(|event| futures::future::ready(event.ok().and_then(parse)))
        .boxed()
}

fn parse(message: EventMessage) -> Option<Event> {
    let actor = message.actor?;
    Some(Event { id: actor.id?, owner: ContainerOwner::from_labels(&actor.attributes?)? })
}
