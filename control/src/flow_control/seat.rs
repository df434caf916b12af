//! The right of a request to be handled: its seat, and the memory of its body and its answer.
//!
//! A request has its seat from when it is let in until what it started has ended and its answer is made, even if its
//! client has gone; but not while its client withholds its body ([`Seat::read`]). Where there are no levels it has it
//! until its answer is sent: nobody waits there, and whoever finds none comes again. So it has where there is no memory
//! for its answer. Bodies that come and answers that go have memory of their own ([`RequestMemory`]). Whatever decides
//! who waits and who is refused stays behind these functions.

use std::{pin::pin, sync::Arc, task::Poll};

use parking_lot::Mutex;

use super::{
    level_seat::{LevelSeat, Vacated, WaitTerms},
    memory::RequestMemory,
    policy::FlowSchema,
    priority_level::{Coming, RequestBrief},
    shares::{Share, Shares},
    too_many::TooMany,
};
use crate::{
    identity::{Identity, MASTERS},
    request::{RequestInfo, Verb, path::ResourcePath},
    status::Status,
};

/// The right to be handled; given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    user: Arc<str>,
    /// Finds a seat where there is none.
    is_master: bool,
    is_heartbeat: bool,
    memory: Arc<RequestMemory>,
    source: SeatSource,
    held: Mutex<SeatState>,
}

/// Where a request's seat comes from.
#[derive(Debug)]
pub enum SeatSource {
    /// There is no limit.
    Unlimited,
    /// Seats that are there or not.
    Shares(Arc<Shares>),
    /// A priority level, in which a request may wait.
    Level(LevelSource),
}

/// A priority level that a request takes its seats from.
#[derive(Debug)]
pub struct LevelSource {
    /// Its FlowSchema, which has the level.
    pub schema: Arc<FlowSchema>,
    /// What is told of it.
    pub request: Arc<RequestBrief>,
    /// How long it waits.
    pub terms: WaitTerms,
}

#[derive(Debug, Default)]
struct SeatState {
    seat: Option<HeldSeat>,
    /// The seat in a level that it gave up for some time.
    vacated: Option<Vacated>,
    body: Option<Share>,
}

/// The memory of an answer.
#[derive(Debug)]
pub enum AnswerMemory {
    /// Within what there is for its user.
    Granted(Share),
    /// There is none, and the answer is sent nevertheless: what has changed something is told. The seat is what bounds
    /// such answers, so that it is kept until this one is sent, or cut off because its client is too slow.
    Overdrawn(Share),
}

#[derive(Debug)]
enum HeldSeat {
    Share { _share: Share },
    Level(LevelSeat),
}

impl LevelSource {
    /// The refusal of a request that the level has just dropped.
    fn too_many(&self) -> TooMany {
        TooMany { retry_after: self.schema.level.retry_after() }
    }
}

impl Seat {
    /// Of a request that has no seat yet.
    pub fn new(identity: &Identity, info: &RequestInfo, memory: Arc<RequestMemory>, source: SeatSource) -> Self {
        let user = match &source {
            SeatSource::Level(level) => level.request.user.clone(),
            SeatSource::Unlimited | SeatSource::Shares(_) => identity.name.as_str().into(),
        };
        let (is_master, is_heartbeat) = (identity.is_in(MASTERS), Self::is_for_heartbeat(identity, info));
        Self { user, is_master, is_heartbeat, memory, source, held: Mutex::default() }
    }

    /// Whether a node shows by this request that it lives. A list or a watch of what shows it does not.
    pub fn is_for_heartbeat(identity: &Identity, info: &RequestInfo) -> bool {
        let of_node = |path: &ResourcePath| match (&*path.group, &*path.resource, path.subresource.as_deref()) {
            ("coordination.k8s.io", "leases", None) => path.namespace.as_deref() == Some("kube-node-lease"),
            ("", "nodes", Some("status")) => true,
            _ => false,
        };
        let of_one = |path: &ResourcePath| match info.verb {
            Verb::Get | Verb::Update | Verb::Patch => path.name.is_some(),
            // A new Lease has its name in its body.
            Verb::Create => true,
            Verb::List | Verb::Watch | Verb::Delete | Verb::DeleteCollection | Verb::Other => false,
        };
        info.resource().is_some_and(|path| of_node(path) && of_one(path)) && identity.node().is_some()
    }

    /// Takes the seat of a request that comes, where that is decided at once.
    pub fn take_at_once(&self) -> Result<(), TooMany> {
        let SeatSource::Shares(seats) = &self.source else { return Ok(()) };
        let taken = seats.take(&self.user, 1);
        if taken.is_none() && !self.is_master {
            return Err(TooMany::IN_A_SECOND);
        }
        self.held.lock().seat = taken.map(|share| HeldSeat::Share { _share: share });
        Ok(())
    }

    /// Takes the seat of a request that comes to a level, once it is its turn.
    pub async fn take_in_turn(&self, coming: Coming) -> Result<(), TooMany> {
        let SeatSource::Level(level) = &self.source else { return self.take_at_once() };
        let taken = LevelSeat::take(&level.schema, coming, &level.request, level.terms).await;
        let taken = taken.map_err(|_| level.too_many())?;
        self.held.lock().seat = Some(HeldSeat::Level(taken));
        Ok(())
    }

    /// Waits for the body of the request. One that does not come takes no seat from others: it is given back for so
    /// long, and taken again once the body is there.
    pub async fn read<T>(&self, body: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let mut body = pin!(body);
        // One that is there already costs no second wait.
        if self.has_seat()
            && let Poll::Ready(read) = futures::poll!(body.as_mut())
        {
            return read;
        }
        self.vacate();
        let body = body.await?;
        self.take_again().await.map_err(TooMany::to_status)?;
        Ok(body)
    }

    /// Has room for so many bytes of the body kept until the request has ended.
    pub fn keep_for_body(&self, bytes: usize) -> Result<(), Status> {
        let mut held = self.held.lock();
        let kept = match &mut held.body {
            Some(body) => body.grow(bytes),
            None => {
                held.body = self.memory.bodies(self.is_heartbeat).take(&self.user, bytes);
                held.body.is_some()
            }
        };
        if kept || self.is_master { Ok(()) } else { Err(TooMany::IN_A_SECOND.to_status()) }
    }

    /// Room for an answer of so many bytes. What has changed something is always told.
    pub fn keep_for_answer(&self, bytes: usize, is_read: bool) -> Result<AnswerMemory, TooMany> {
        self.keep(self.memory.answers(), bytes, is_read)
    }

    /// The same for a short one.
    pub fn keep_for_short_answer(&self, bytes: usize, is_read: bool) -> Result<AnswerMemory, TooMany> {
        self.keep(self.memory.short_answers(), bytes, is_read)
    }

    fn keep(&self, answers: &Arc<Shares>, bytes: usize, is_read: bool) -> Result<AnswerMemory, TooMany> {
        match answers.take_or_first_of_free(&self.user, bytes) {
            Some(granted) => Ok(AnswerMemory::Granted(granted)),
            None if is_read && !self.is_master => Err(TooMany::IN_A_SECOND),
            None => Ok(AnswerMemory::Overdrawn(answers.take_anyway(&self.user, bytes))),
        }
    }

    /// Gives it back for good: what is still to be done waits for others, for as long as they like.
    pub fn give_back(&self) {
        let seat = self.held.lock().seat.take();
        // Not under the lock: others come to their turn.
        drop(seat);
    }

    /// The answer is made, and its memory is within its bounds: from now on a level's seats are for others, whose turn
    /// must not depend on how fast a client reads.
    pub fn answer_is_made(&self) {
        if let SeatSource::Level(_) = &self.source {
            self.give_back();
        }
    }

    fn has_seat(&self) -> bool {
        self.held.lock().seat.is_some()
    }

    fn vacate(&self) {
        let mut held = self.held.lock();
        let seat = held.seat.take();
        if let Some(HeldSeat::Level(seat)) = seat {
            held.vacated = Some(seat.vacate());
        }
    }

    async fn take_again(&self) -> Result<(), TooMany> {
        let vacated = self.held.lock().vacated;
        let (SeatSource::Level(level), Some(vacated)) = (&self.source, vacated) else { return self.take_at_once() };
        let taken = LevelSeat::take_again(&level.schema, vacated, &level.request, level.terms).await;
        let taken = taken.map_err(|_| level.too_many())?;
        self.held.lock().seat = Some(HeldSeat::Level(taken));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            in_flight::InFlight,
            memory::{ANSWERS, BODIES, HEARTBEAT_BODIES_OF_A_NODE},
        },
        *,
    };
    use crate::request::tests::info;

    #[test]
    fn a_heartbeat_is_a_request_for_one_lease_or_one_status() {
        let node = Identity::authenticated("system:node:n".into(), vec!["system:nodes".into()]);
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let lease = &format!("{leases}/n");
        let status = "/api/v1/nodes/n/status";
        let is_heartbeat = |method: &str, uri: &str| Seat::is_for_heartbeat(&node, &info(method, uri));
        for (method, uri) in
            [("GET", &**lease), ("PUT", lease), ("PATCH", lease), ("POST", leases), ("PUT", status), ("PATCH", status)]
        {
            assert!(is_heartbeat(method, uri), "{method} {uri}");
        }
        for (method, uri) in [
            ("GET", leases),
            ("GET", &*format!("{leases}?watch=1")),
            ("GET", &*format!("{leases}?fieldSelector=metadata.name%3Dn")),
            ("DELETE", leases),
            ("DELETE", lease),
            ("GET", "/api/v1/nodes/n"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/default/leases/n"),
        ] {
            assert!(!is_heartbeat(method, uri), "{method} {uri}");
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_takes_no_seat() {
        let limits = InFlight::new(1, 1);
        let user = Identity::authenticated("joe".into(), Vec::new());
        let post = info("POST", "/api/v1/namespaces/a/pods");
        let waiting = limits.enter(&user, &post).unwrap();
        let (send, body) = tokio::sync::oneshot::channel();
        let read = waiting.read(async { Ok(body.await.ok()) });
        let mut read = std::pin::pin!(read);
        assert!(futures::poll!(read.as_mut()).is_pending());
        let other = limits.enter(&user, &post).expect("the one that waits has no seat");
        send.send("body").unwrap();
        assert_eq!(read.await.unwrap_err().code, 429, "it comes again");
        drop(other);
        assert_eq!(waiting.read(async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(limits.enter(&user, &post).unwrap_err(), TooMany::IN_A_SECOND, "it has its seat again");
    }

    #[test]
    fn the_memory_of_bodies_and_answers_is_bounded_for_each_user() {
        let limits = InFlight::new(0, 0);
        let enter = |name: &str| {
            let user = Identity::authenticated(name.to_owned(), Vec::new());
            limits.enter(&user, &info("POST", "/api/v1/namespaces/a/pods")).unwrap()
        };
        let (joe, ann) = (enter("joe"), enter("ann"));
        let mut kept = 0;
        while joe.keep_for_body(1 << 20).is_ok() {
            kept += 1;
        }
        assert_eq!(kept, BODIES >> 21);
        assert!(ann.keep_for_body(3 << 20).is_ok());
        drop(joe);
        let joe = enter("joe");
        assert!(joe.keep_for_body(3 << 20).is_ok(), "what it held is free again");

        let large = joe.keep_for_answer(2 * ANSWERS, true).expect("the first is always sent");
        assert_eq!(joe.keep_for_answer(1, true).unwrap_err(), TooMany::IN_A_SECOND);
        let told = joe.keep_for_answer(1, false).expect("what changed something is told");
        assert!(matches!(told, AnswerMemory::Overdrawn(_)));
        drop((large, told));
        assert!(matches!(joe.keep_for_answer(1, false), Ok(AnswerMemory::Granted(_))));
        assert!(joe.keep_for_answer(1, true).is_ok());
    }

    #[test]
    fn the_bodies_of_others_leave_room_for_those_of_heartbeats() {
        let limits = InFlight::new(0, 0);
        let post = info("POST", "/api/v1/namespaces/a/pods");
        let users = (0..40).map(|index| Identity::authenticated(format!("user-{index}"), Vec::new()));
        let seats: Vec<Seat> = users.map(|user| limits.enter(&user, &post).unwrap()).collect();
        for seat in &seats {
            while seat.keep_for_body(16 << 10).is_ok() {}
        }
        let node = Identity::authenticated("system:node:n".into(), vec!["system:nodes".into()]);
        let beat = limits.enter(&node, &info("PUT", "/api/v1/nodes/n/status")).unwrap();
        assert!(beat.keep_for_body(1 << 20).is_ok());
        assert!(beat.keep_for_body(HEARTBEAT_BODIES_OF_A_NODE).is_err(), "a node has its share");
    }
}
