//! How many handshakes with one agent are under way at a time. Until one is done an agent cannot know whose it is, and
//! counts it among those of strangers at this address, of which it has but few: more than that at once would be cut.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Half of what an agent takes from strangers of one address: another control service may be behind the same one.
const AT_ONCE: usize = 16;

/// The handshakes with all agents. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct AgentHandshakes(Arc<Mutex<HashMap<SocketAddr, Weak<Semaphore>>>>);

impl AgentHandshakes {
    /// Waits for a turn at the agent there, which lasts until it is dropped.
    pub async fn take(&self, agent: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut all = self.0.lock();
            let known = all.get(&agent).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                // Agents that nobody dials now need none.
                all.retain(|_, turns| turns.strong_count() > 0);
                let turns = Arc::new(Semaphore::new(AT_ONCE));
                all.insert(agent, Arc::downgrade(&turns));
                turns
            })
        };
        // It is never closed.
        turns.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn an_agent_has_so_many_handshakes_at_a_time_and_others_have_theirs() {
        let (turns, [one, other]) =
            (AgentHandshakes::default(), [10250, 10251].map(|p| SocketAddr::from(([10, 0, 0, 1], p))));
        let now = |agent| turns.take(agent).now_or_never();
        let mut taken: Vec<_> = (0..AT_ONCE).map(|_| now(one).expect("there is a turn")).collect();
        assert!(now(one).is_none() && now(other).is_some());
        taken.pop();
        let next = now(one);
        assert!(next.is_some() && now(one).is_none());
        drop((taken, next));
        assert!(now(other).is_some());
        assert_eq!(turns.0.lock().len(), 1, "those that nobody waits for are forgotten");
    }
}
