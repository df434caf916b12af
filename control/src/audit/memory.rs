//! How much memory events take, in bytes, those of requests under way included: a request has it before anything is
//! done for it.
//!
//! Where requests wait for their events, nothing is lost for want of memory: a request waits for it, and is refused
//! where it does not come. Where they do not wait, memory is counted as far as there is any: the queues of the backends
//! are bounded by bytes of their own. What one user's requests take leaves some for those of others: a client that
//! sends its bodies slowly must not have everybody wait. Heartbeats of nodes have memory of their own:
//! whatever others do, nodes must not look dead for want of an event's memory.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::budget::{Budget, Taken, UserShare};

/// The memory of all events of one control service.
#[derive(Debug)]
pub struct AuditMemory {
    /// Of requests that end.
    facts: Budget,
    /// Of watches and streams, which keep it for long: they leave that of others alone.
    lasting_facts: Budget,
    /// Of heartbeats of nodes.
    heartbeat_facts: Budget,
    /// Of objects that are recorded, but those of heartbeats.
    objects: Budget,
    heartbeat_objects: Budget,
    /// How long a request waits for it; `None` where it does not.
    patience: Option<Duration>,
}

/// Which requests have memory of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryClass {
    /// Those that end.
    #[default]
    Ending,
    /// Watches and streams.
    Lasting,
    /// Heartbeats of nodes.
    Heartbeat,
}

/// What one request has of it, until the last of its events is written.
#[derive(Debug, Default)]
pub struct HeldMemory(Mutex<HeldPermits>);

#[derive(Debug, Default)]
struct HeldPermits {
    class: MemoryClass,
    facts: Option<OwnedSemaphorePermit>,
    objects: Option<OwnedSemaphorePermit>,
    /// Of what its user may have of facts. Taken once.
    facts_share: Option<UserShare>,
    /// The same of objects.
    objects_share: Option<UserShare>,
}

/// There is no memory for a request's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no memory for audit events")]
pub struct NoMemory;

/// How many bytes there are.
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    /// Of what is known of requests that end.
    pub facts: u32,
    /// The same of requests that last.
    pub lasting_facts: u32,
    /// The same of heartbeats: of each some kilobytes.
    pub heartbeat_facts: u32,
    /// Of objects that are recorded.
    pub objects: u32,
    /// The same of heartbeats: a node's status has some tens of kilobytes.
    pub heartbeat_objects: u32,
    /// Of the events that wait in one queue for which no request waits: what a server that is away gets too late, 500
    /// events a second for two minutes.
    pub queue: u32,
    /// How long a request waits.
    pub patience: Duration,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            facts: 64 << 20,
            lasting_facts: 64 << 20,
            heartbeat_facts: 32 << 20,
            objects: 128 << 20,
            heartbeat_objects: 64 << 20,
            queue: 128 << 20,
            patience: Duration::from_secs(30),
        }
    }
}

/// One user's requests have at most this part of all facts, and of all objects.
const PART_OF_FACTS: u32 = 8;
const PART_OF_OBJECTS: u32 = 2;
/// The same of one node's heartbeats.
const PART_OF_HEARTBEAT_FACTS: u32 = 128;
const PART_OF_HEARTBEAT_OBJECTS: u32 = 16;
/// An object is there twice: as it is recorded, and as it is written.
const COPIES: usize = 2;

impl AuditMemory {
    /// `waits`: whether requests wait for their events.
    pub fn new(limits: MemoryLimits, waits: bool) -> Self {
        Self {
            facts: Budget::shared(limits.facts, PART_OF_FACTS),
            lasting_facts: Budget::shared(limits.lasting_facts, PART_OF_FACTS),
            heartbeat_facts: Budget::shared(limits.heartbeat_facts, PART_OF_HEARTBEAT_FACTS),
            objects: Budget::shared(limits.objects, PART_OF_OBJECTS),
            heartbeat_objects: Budget::shared(limits.heartbeat_objects, PART_OF_HEARTBEAT_OBJECTS),
            patience: waits.then_some(limits.patience),
        }
    }

    /// So many bytes of facts, before a request of a user is handled. Once per request, before any objects.
    ///
    /// # Errors
    /// That none became free in time.
    pub async fn take_facts(
        &self,
        held: &HeldMemory,
        user: &str,
        bytes: usize,
        class: MemoryClass,
    ) -> Result<(), NoMemory> {
        let budget = match class {
            MemoryClass::Ending => &self.facts,
            MemoryClass::Lasting => &self.lasting_facts,
            MemoryClass::Heartbeat => &self.heartbeat_facts,
        };
        let Taken { share, bytes } = self.take(budget, user, bytes).await?;
        let mut held = held.0.lock();
        held.class = class;
        (held.facts_share, held.facts) = (share, bytes);
        Ok(())
    }

    /// So many bytes of objects, before what may change something is begun. Once per request: who waits for more while
    /// holding some may wait for itself.
    ///
    /// # Errors
    /// That none became free in time.
    pub async fn take_objects(&self, held: &HeldMemory, user: &str, bytes: usize) -> Result<(), NoMemory> {
        let class = held.0.lock().class;
        let Taken { share, bytes } = self.take(self.objects_of(class), user, bytes.saturating_mul(COPIES)).await?;
        held.0.lock().add_objects(share, bytes);
        Ok(())
    }

    fn objects_of(&self, class: MemoryClass) -> &Budget {
        match class {
            MemoryClass::Ending | MemoryClass::Lasting => &self.objects,
            MemoryClass::Heartbeat => &self.heartbeat_objects,
        }
    }

    async fn take(&self, budget: &Budget, user: &str, bytes: usize) -> Result<Taken, NoMemory> {
        match self.patience {
            None => Ok(Taken { share: None, bytes: budget.take_what_is_free(bytes) }),
            Some(patience) => {
                let taken = tokio::time::timeout(patience, budget.take(user, bytes)).await;
                taken.ok().flatten().ok_or(NoMemory)
            }
        }
    }

    /// So many more bytes of objects, if they are free, and its user may have them. Whoever holds all that their user
    /// may have, or all that there are, gets more: it is alone.
    pub fn grow_objects(&self, held: &HeldMemory, user: &str, bytes: usize) -> bool {
        let mut permits = held.0.lock();
        let budget = self.objects_of(permits.class);
        let has = permits.objects.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let has_of_share = permits.objects_share.as_ref().map_or(0, UserShare::bytes);
        let bytes = bytes.saturating_mul(COPIES);
        let of_user = bytes.min(budget.most_of(user).saturating_sub(has_of_share));
        let of_all = bytes.min(budget.total().saturating_sub(has));
        let Some(share) = budget.try_take_share(user, of_user) else { return false };
        let Some(permit) = budget.try_take(of_all) else { return false };
        permits.add_objects(Some(share), Some(permit));
        true
    }

    /// Counts what objects take that are there already, so many bytes in all, as far as there is memory.
    pub fn cover_objects(&self, held: &HeldMemory, bytes: usize) {
        let mut permits = held.0.lock();
        let has = permits.objects.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.saturating_mul(COPIES).saturating_sub(has);
        if missing > 0 {
            let free = self.objects_of(permits.class).take_what_is_free(missing);
            permits.add_objects(None, free);
        }
    }
}

impl HeldPermits {
    fn add_objects(&mut self, share: Option<UserShare>, bytes: Option<OwnedSemaphorePermit>) {
        match (self.objects_share.as_mut(), share) {
            (Some(held), Some(more)) => held.merge(more),
            (None, more) => self.objects_share = more,
            (Some(_), None) => {}
        }
        match (self.objects.as_mut(), bytes) {
            (Some(held), Some(more)) => held.merge(more),
            (None, more) => self.objects = more,
            (Some(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MemoryClass::*, *};

    const LIMITS: MemoryLimits = MemoryLimits {
        facts: 80,
        lasting_facts: 80,
        heartbeat_facts: 1280,
        objects: 10,
        heartbeat_objects: 160,
        queue: 10,
        patience: Duration::from_secs(30),
    };

    #[tokio::test]
    async fn requests_that_wait_for_their_events_wait_for_memory() {
        let memory = AuditMemory::new(LIMITS, true);
        let [first, second, watch] = [(); 3].map(|()| HeldMemory::default());
        memory.take_facts(&first, "joe", 8, Ending).await.unwrap();
        memory.take_facts(&watch, "joe", 8, Lasting).await.expect("what lasts has its own");
        let mut waiting = std::pin::pin!(memory.take_facts(&second, "joe", 4, Ending));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        let other = HeldMemory::default();
        memory.take_facts(&other, "ann", 8, Ending).await.expect("another user does not wait for joe");
        drop(first);
        waiting.await.unwrap();
        assert_eq!(memory.facts.free(), 80 - 4 - 8);
        // The memory of all is taken, and no user has more than an eighth.
        let many: Vec<HeldMemory> = (0..7).map(|_| HeldMemory::default()).collect();
        for (number, held) in many.iter().enumerate() {
            let bytes = if number < 6 { 10 } else { 8 };
            memory.take_facts(held, &number.to_string(), bytes, Ending).await.unwrap();
        }
        let late = HeldMemory::default();
        let mut waiting = std::pin::pin!(memory.take_facts(&late, "late", 1, Ending));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(other);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn requests_that_do_not_wait_are_counted_as_far_as_there_is_memory() {
        let memory = AuditMemory::new(LIMITS, false);
        let [first, second] = [(); 2].map(|()| HeldMemory::default());
        memory.take_facts(&first, "joe", 50, Ending).await.unwrap();
        memory.take_facts(&second, "joe", 50, Ending).await.unwrap();
        memory.take_objects(&second, "joe", 100).await.unwrap();
        assert_eq!((memory.facts.free(), memory.objects.free()), (0, 0));
        drop((first, second));
        assert_eq!((memory.facts.free(), memory.objects.free()), (80, 10));
    }

    #[tokio::test]
    async fn reads_of_one_user_leave_memory_for_those_of_others() {
        let memory = AuditMemory::new(LIMITS, true);
        let [first, second, other, write] = [(); 4].map(|()| HeldMemory::default());
        assert!(memory.grow_objects(&first, "joe", 1) && memory.grow_objects(&first, "joe", 1));
        assert!(!memory.grow_objects(&second, "joe", 1), "half of all is for others");
        assert!(memory.grow_objects(&other, "ann", 2));
        let mut waiting = std::pin::pin!(memory.take_objects(&write, "joe", 1));
        assert!(futures::poll!(waiting.as_mut()).is_pending(), "writes have of the same");
        drop(first);
        waiting.await.unwrap();
        assert!(memory.grow_objects(&second, "joe", 1));
    }

    #[tokio::test]
    async fn what_is_larger_than_all_there_is_passes_alone() {
        let memory = AuditMemory::new(LIMITS, true);
        let [small, large] = [(); 2].map(|()| HeldMemory::default());
        memory.take_objects(&small, "joe", 1).await.unwrap();
        let grow = |bytes| memory.grow_objects(&large, "ann", bytes);
        assert!(grow(4) && !grow(4), "another one has some");
        drop(small);
        let small = HeldMemory::default();
        assert!(grow(4) && grow(4000), "it is alone");
        assert_eq!(memory.objects.free(), 0);
        memory.cover_objects(&small, 1);
        drop(large);
        memory.cover_objects(&small, 3);
        memory.cover_objects(&small, 2);
        assert_eq!(memory.objects.free(), 4, "what is covered is not counted again");
    }

    #[tokio::test]
    async fn heartbeats_wait_for_nobody_elses_requests() {
        let memory = AuditMemory::new(LIMITS, true);
        // Eight namespaces' accounts have all, and objects as well.
        let slow: Vec<HeldMemory> = (0..16).map(|_| HeldMemory::default()).collect();
        for (number, held) in slow.iter().enumerate() {
            let account = format!("system:serviceaccount:n{}:account-{number}", number / 2);
            memory.take_facts(held, &account, 5, Ending).await.unwrap();
        }
        assert_eq!(memory.facts.free(), 0);
        assert!(memory.grow_objects(&slow[0], "joe", 2) && memory.grow_objects(&slow[1], "ann", 3));
        let [beat, again, other] = [(); 3].map(|()| HeldMemory::default());
        memory.take_facts(&beat, "system:node:n", 10, Heartbeat).await.expect("it does not wait");
        memory.take_objects(&beat, "system:node:n", 5).await.expect("nor for its object");
        let mut waiting = std::pin::pin!(memory.take_facts(&again, "system:node:n", 1, Heartbeat));
        assert!(futures::poll!(waiting.as_mut()).is_pending(), "a node has its part");
        memory.take_facts(&other, "system:node:other", 1, Heartbeat).await.expect("it takes none of another's");
        memory.cover_objects(&beat, 8);
        assert_eq!(memory.heartbeat_objects.free(), 160 - 16);
        drop(beat);
        waiting.await.unwrap();
        assert_eq!((memory.heartbeat_facts.free(), memory.heartbeat_objects.free()), (1280 - 2, 160));
    }
}
