//! How much of something one client may have at one time: a pod that asks or connects without end keeps no other from
//! its answers.

use std::{net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::client_network::{ClientCounts, ClientNetwork};

/// Counts questions, connections and the like by client. Clones share the counts.
#[derive(Clone, Debug)]
pub struct ClientLimit {
    most: usize,
    under_way: Arc<Mutex<ClientCounts>>,
}

/// One that counts until it is dropped.
#[derive(Debug)]
pub struct ClientSlot {
    client: ClientNetwork,
    limit: ClientLimit,
}

impl ClientLimit {
    /// At most `most` of each client.
    pub fn new(most: usize) -> Self {
        Self { most, under_way: Arc::default() }
    }

    /// A slot, unless the client has as many as it may.
    pub fn take(&self, client: IpAddr) -> Option<ClientSlot> {
        let client = ClientNetwork::of(client);
        let has_room = self.under_way.lock().add(client, self.most);
        has_room.then(|| ClientSlot { client, limit: self.clone() })
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.limit.under_way.lock().remove(self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_its_slots_and_no_more_and_gives_them_back() {
        let (limit, one, other) = (ClientLimit::new(2), [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let held = [limit.take(one), limit.take(one)];
        assert!(held.iter().all(Option::is_some) && limit.take(one).is_none());
        assert!(limit.take(other).is_some());
        drop(held);
        assert!(limit.take(one).is_some());
        assert!(limit.under_way.lock().is_empty(), "who has nothing under way is forgotten");
    }
}
