//! How many connections clients may hold of a server that anybody reaches.
//!
//! Each is a file descriptor that the agent needs elsewhere, and a place that others want. One that comes when there is
//! no room cuts the oldest: whoever holds many keeps nobody out.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// How many connections there may be, and which there are. Clones share them.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    of_one: usize,
    of_all: usize,
    all: Arc<Mutex<Connections>>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    /// By age, the oldest first.
    open: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

/// A connection that counts. Dropped, it counts no more.
#[derive(Debug)]
pub struct Counted {
    id: u64,
    cut: CancellationToken,
    limit: ConnectionLimit,
}

impl ConnectionLimit {
    /// At most `of_one` connections of one address, and `of_all` together.
    pub fn new(of_one: usize, of_all: usize) -> Self {
        Self { of_one, of_all, all: Arc::default() }
    }

    /// Takes in a connection from an address; makes room by cutting the oldest of that address, or of all.
    pub fn admit(&self, from: IpAddr) -> Counted {
        let mut all = self.all.lock();
        let (of_one, oldest_of_one) = all
            .open
            .iter()
            .filter(|(_, (address, _))| *address == from)
            .fold((0_usize, None), |(count, oldest), (id, _)| (count + 1, oldest.or(Some(*id))));
        let oldest = match (of_one >= self.of_one, all.open.len() >= self.of_all) {
            (true, _) => oldest_of_one,
            (false, true) => all.open.keys().next().copied(),
            (false, false) => None,
        };
        if let Some((_, cut)) = oldest.and_then(|id| all.open.remove(&id)) {
            cut.cancel();
        }
        let (id, cut) = (all.next, CancellationToken::new());
        all.next += 1;
        all.open.insert(id, (from, cut.clone()));
        Counted { id, cut, limit: self.clone() }
    }
}

impl Counted {
    /// Completes when the connection is to make room.
    pub async fn is_cut(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.limit.all.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 244, 0, last].into()
    }

    #[test]
    fn one_address_cuts_its_own_connections_and_those_of_no_other() {
        let limit = ConnectionLimit::new(32, 512);
        let other = limit.admit(address(2));
        let mut held: Vec<_> = (0..32).map(|_| limit.admit(address(1))).collect();
        assert!(held.iter().all(|held| !held.cut.is_cancelled()));
        held.push(limit.admit(address(1)));
        let cut: Vec<usize> = (0..held.len()).filter(|at| held[*at].cut.is_cancelled()).collect();
        assert_eq!((cut, other.cut.is_cancelled()), (vec![0], false));
        // A place that was given back cuts nobody.
        held.truncate(32 - 1);
        let next = limit.admit(address(1));
        assert!(!held[1].cut.is_cancelled() && !next.cut.is_cancelled());
        drop((held, other, next));
        assert!(limit.all.lock().open.is_empty());
    }

    #[test]
    fn all_addresses_together_have_a_limit() {
        let limit = ConnectionLimit::new(32, 512);
        let addresses = (0..u8::MAX).cycle().map(address);
        let held: Vec<_> = addresses.take(513).map(|from| limit.admit(from)).collect();
        assert_eq!(held.iter().filter(|held| held.cut.is_cancelled()).count(), 1);
        assert!(held[0].cut.is_cancelled());
        assert_eq!(limit.all.lock().open.len(), 512);
    }
}
