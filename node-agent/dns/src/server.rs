//! What UDP and TCP share: the zone, the forwarder and the counters, and the order in which a query passes them.

use std::{
    net::{IpAddr, SocketAddrV4},
    path::Path,
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
use hickory_proto::op::Message;

use super::{
    answer::{AnswerOutcome, answer},
    counters::{Counters, Counts, count},
    forward::Forwarder,
    name::Name,
    query::{self, FLAG_RECURSION_DESIRED, Query, ResponseCode},
    response::{Response, Transport, limit},
    zone::Zone,
};
use fairlead_world::World;

/// The state that all transports share.
pub struct Server {
    zone: ArcSwap<Zone>,
    forwarder: Forwarder,
    counters: Arc<Counters>,
}

/// What the fast path made of a query.
#[derive(Debug, PartialEq, Eq)]
pub enum FastPathOutcome {
    /// The response is written.
    Done,
    /// Other servers must be asked: see [`Server::resolve`].
    Wait,
    /// Not a query: it gets no response.
    Drop,
}

impl Server {
    /// Serves `zone` at `address`, and all other names by the resolvers that `resolv_conf` names.
    pub fn new(zone: Zone, address: SocketAddrV4, resolv_conf: &Path) -> Self {
        let counters = Arc::new(Counters::default());
        let forwarder = Forwarder::new(resolv_conf.to_owned(), address, counters.clone());
        Self { zone: ArcSwap::from_pointee(zone), forwarder, counters }
    }

    /// The zone of the last World.
    pub fn zone(&self) -> Guard<Arc<Zone>> {
        self.zone.load()
    }

    /// Queries since the start, by what became of them.
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// To be called by one writer only.
    pub fn update_zone(&self, world: Arc<World>) {
        let mut zone = Zone::clone(&self.zone.load());
        zone.update(world);
        self.zone.store(Arc::new(zone));
    }

    /// Answers without waiting where that is possible: from the zone or the cache. `turn` rotates addresses.
    pub fn answer_fast(&self, packet: &[u8], transport: Transport, turn: usize, out: &mut Vec<u8>) -> FastPathOutcome {
        count(&self.counters.queries);
        match answer(packet, &self.zone.load(), transport, turn, out) {
            AnswerOutcome::Answered => {
                count(&self.counters.zone);
                FastPathOutcome::Done
            }
            AnswerOutcome::Drop => FastPathOutcome::Drop,
            AnswerOutcome::Chase(_) => FastPathOutcome::Wait,
            AnswerOutcome::Elsewhere => {
                let Ok(query) = query::parse(packet) else { return FastPathOutcome::Drop };
                if query.flags & FLAG_RECURSION_DESIRED == 0 {
                    // Only what this server is itself responsible for (RFC 1035, section 4.1.1).
                    Response::start(&query, transport, out).finish(ResponseCode::Refused);
                    return FastPathOutcome::Done;
                }
                if self.forwarder.write_cached(&query, transport, out) {
                    FastPathOutcome::Done
                } else {
                    FastPathOutcome::Wait
                }
            }
        }
    }

    /// Answers what [`Server::answer_fast`] could not. Bounded in time by the forwarder.
    pub async fn resolve(&self, packet: &[u8], client: IpAddr, transport: Transport, out: &mut Vec<u8>) {
        let Ok(query) = query::parse(packet) else { return };
        let zone = self.zone.load_full();
        match answer(packet, &zone, Transport::Tcp, 0, out) {
            AnswerOutcome::Chase(target) => self.resolve_alias(&query, &target, client, transport, out).await,
            AnswerOutcome::Elsewhere => self.forwarder.resolve(&query, &zone, client, transport, out).await,
            AnswerOutcome::Answered | AnswerOutcome::Drop => (),
        }
    }

    /// A response for a query that cannot be served now.
    pub fn overloaded(&self, packet: &[u8], out: &mut Vec<u8>) {
        count(&self.counters.overloads);
        if let Ok(query) = query::parse(packet) {
            Response::start(&query, Transport::Udp, out).finish(ResponseCode::ServFail);
        }
    }

    /// Appends the records that other resolvers have of `target` to the aliases in `out`.
    async fn resolve_alias(
        &self,
        query: &Query<'_>,
        target: &Name,
        client: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) {
        let packet = query.about(target);
        let mut found = Vec::new();
        if let Ok(onward) = query::parse(&packet) {
            let zone = self.zone.load_full();
            if !self.forwarder.write_cached(&onward, Transport::Tcp, &mut found) {
                self.forwarder.resolve(&onward, &zone, client, Transport::Tcp, &mut found).await;
            }
        }
        if let (Ok(mut aliases), Ok(found)) = (Message::from_vec(out), Message::from_vec(&found)) {
            aliases.add_answers(found.answers);
            aliases.authorities = found.authorities;
            aliases.metadata.response_code = found.metadata.response_code;
            if let Ok(bytes) = aliases.to_vec()
                && bytes.len() <= limit(query.edns, transport)
            {
                *out = bytes;
                return;
            }
        }
        let mut response = Response::start(query, transport, out);
        response.set_truncated();
        response.finish(ResponseCode::NoError);
    }
}
