//! How long a failed pod stays before it is replaced: a pod that its node refuses would fail again at once.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::api::apps::v1::DaemonSet;
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

impl FailingNode {
    /// The node, for the generation that `set` reports.
    pub fn of(set: &DaemonSet, node: &str) -> Self {
        Self {
            uid: set.metadata.uid.clone().unwrap_or_default(),
            generation: set.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0),
            node: node.to_owned(),
        }
    }
}

/// When failed pods were last replaced.
#[derive(Default)]
pub struct FailedPods {
    nodes: Mutex<FailingNodes>,
}

#[derive(Default)]
struct FailingNodes {
    replaced: HashMap<FailingNode, Replaced>,
    /// When those that have been quiet were last dropped.
    swept: Option<Instant>,
}

struct Replaced {
    at: Instant,
    wait: Duration,
}

impl Replaced {
    /// Whether the node has been quiet for so long that its failures are forgotten.
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) > LONGEST.saturating_mul(2)
    }
}

impl FailingNodes {
    /// Drops the quiet ones, at most once each [`LONGEST`]: with thousands of failing nodes, not at each failure.
    fn sweep(&mut self, now: Instant) {
        let swept = *self.swept.get_or_insert(now);
        if now.saturating_duration_since(swept) >= LONGEST {
            self.swept = Some(now);
            self.replaced.retain(|_, replaced| !replaced.is_over(now));
        }
    }
}

impl FailedPods {
    /// How long the next failed pod there still stays; `None` where it can be replaced now.
    pub fn wait(&self, node: &FailingNode, now: Instant) -> Option<Duration> {
        let nodes = self.nodes.lock();
        let replaced = nodes.replaced.get(node)?;
        replaced.wait.checked_sub(now.saturating_duration_since(replaced.at)).filter(|rest| !rest.is_zero())
    }

    /// A failed pod there was deleted, to be replaced.
    pub fn replaced(&self, node: FailingNode, now: Instant) {
        let mut nodes = self.nodes.lock();
        nodes.sweep(now);
        let last = nodes.replaced.get(&node).filter(|last| !last.is_over(now));
        let wait = last.map_or(FIRST, |last| last.wait.saturating_mul(2).min(LONGEST));
        nodes.replaced.insert(node, Replaced { at: now, wait });
    }

    /// Forgets a DaemonSet that was deleted.
    pub fn forget(&self, uid: &str) {
        self.nodes.lock().replaced.retain(|node, _| node.uid != uid);
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

    #[test]
    fn nodes_that_are_quiet_are_dropped_now_and_then_and_not_at_each_failure() {
        let failed = FailedPods::default();
        let node = |name: &str| FailingNode { uid: "set".into(), generation: 1, node: name.into() };
        let start = Instant::now();
        let known = || failed.nodes.lock().replaced.len();
        failed.replaced(node("quiet"), start);
        failed.replaced(node("b"), start + LONGEST * 2);
        assert_eq!(known(), 2, "it is not quiet for long enough");
        failed.replaced(node("c"), start + LONGEST * 3 - FIRST);
        assert_eq!(known(), 3, "the last sweep was a moment ago");
        failed.replaced(node("d"), start + LONGEST * 3);
        assert_eq!((known(), failed.nodes.lock().replaced.contains_key(&node("quiet"))), (3, false));
    }
}
