//! How long a failed pod stays before it is replaced: a pod that its node refuses would fail again at once.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The first wait; it doubles with each further failure. Source: `NewDaemonSetsController`.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// One node of one generation of one DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FailingNode {
    /// Of the DaemonSet.
    pub uid: String,
    /// The generation whose pods failed: a new one is tried at once.
    pub generation: i64,
    /// Name of the node.
    pub node: String,
}

/// When failed pods were last replaced.
#[derive(Default)]
pub struct FailedPods {
    nodes: Mutex<HashMap<FailingNode, Replaced>>,
}

struct Replaced {
    at: Instant,
    wait: Duration,
}

impl FailedPods {
    /// How long the next failed pod there still stays; `None` where it can be replaced now.
    pub fn wait(&self, node: &FailingNode, now: Instant) -> Option<Duration> {
        let nodes = self.nodes.lock();
        let replaced = nodes.get(node)?;
        replaced.wait.checked_sub(now.saturating_duration_since(replaced.at)).filter(|rest| !rest.is_zero())
    }

    /// A failed pod there is replaced.
    pub fn replaced(&self, node: FailingNode, now: Instant) {
        let mut nodes = self.nodes.lock();
        nodes.retain(|_, replaced| now.saturating_duration_since(replaced.at) <= LONGEST.saturating_mul(2));
        let wait = nodes.get(&node).map_or(FIRST, |replaced| replaced.wait.saturating_mul(2).min(LONGEST));
        nodes.insert(node, Replaced { at: now, wait });
    }

    /// Forgets a DaemonSet that was deleted.
    pub fn forget(&self, uid: &str) {
        self.nodes.lock().retain(|node, _| node.uid != uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_quarter_of_an_hour_and_begins_again_after_a_quiet_time() {
        let failed = FailedPods::default();
        let node = FailingNode { uid: "set".into(), generation: 1, node: "n".into() };
        let mut now = Instant::now();
        assert_eq!(failed.wait(&node, now), None);
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            failed.replaced(node.clone(), now);
            assert_eq!(failed.wait(&node, now), Some(Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
            assert_eq!(failed.wait(&node, now), None);
        }
        assert_eq!(failed.wait(&FailingNode { generation: 2, ..node.clone() }, now), None);
        failed.replaced(node.clone(), now + LONGEST * 3);
        assert_eq!(failed.wait(&node, now + LONGEST * 3), Some(FIRST));
        failed.forget("set");
        assert_eq!(failed.wait(&node, now + LONGEST * 3), None);
    }
}
