//! How many pods of one group run on each node and in each zone.

use std::collections::HashMap;

use super::node::NodeInfo;

const MAX_SCORE: i64 = 100;

/// Pods of one group, by place.
#[derive(Clone, Debug, Default)]
pub struct Siblings {
    nodes: HashMap<usize, i64>,
    zones: HashMap<String, i64>,
}

/// The largest numbers of siblings on one node and in one zone among the candidates.
#[derive(Clone, Copy, Debug)]
pub struct MaxCounts {
    node: i64,
    /// 0 where no candidate is in a zone that holds siblings.
    zone: i64,
    zoned: bool,
}

impl Siblings {
    /// Counts one more on a node and in its zone.
    pub fn add(&mut self, node: usize, zone: Option<&str>) {
        *self.nodes.entry(node).or_insert(0) += 1;
        if let Some(zone) = zone {
            match self.zones.get_mut(zone) {
                Some(count) => *count += 1,
                None => {
                    self.zones.insert(zone.to_owned(), 1);
                }
            }
        }
    }

    /// Takes one away; returns whether none is left.
    pub fn remove(&mut self, node: usize, zone: Option<&str>) -> bool {
        if let Some(count) = self.nodes.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.nodes.remove(&node);
            }
        }
        if let Some(count) = zone.and_then(|zone| self.zones.get_mut(zone)) {
            *count = (*count - 1).max(0);
        }
        self.nodes.is_empty()
    }

    /// The largest counts on one node and in one zone among the candidates.
    pub fn max_counts(&self, candidates: &[(usize, &NodeInfo)]) -> MaxCounts {
        let mut max_counts = MaxCounts { node: 0, zone: 0, zoned: false };
        for (index, node) in candidates {
            max_counts.node = max_counts.node.max(self.on(*index));
            max_counts.zone = max_counts.zone.max(self.within(node));
            max_counts.zoned |= node.node.zone.is_some();
        }
        max_counts
    }

    /// 100 where none of the siblings are, 0 where most are. Zones weigh two thirds. Source: `SelectorSpread`.
    pub fn score(&self, index: usize, node: &NodeInfo, max_counts: &MaxCounts) -> i64 {
        let share = |count: i64, most: i64| if most == 0 { MAX_SCORE } else { (most - count) * MAX_SCORE / most };
        let by_node = share(self.on(index), max_counts.node);
        if !max_counts.zoned {
            return by_node;
        }
        let by_zone = if node.node.zone.is_some() { share(self.within(node), max_counts.zone) } else { 0 };
        (by_node + 2 * by_zone) / 3
    }

    fn on(&self, index: usize) -> i64 {
        self.nodes.get(&index).copied().unwrap_or(0)
    }

    fn within(&self, node: &NodeInfo) -> i64 {
        node.node.zone.as_ref().and_then(|zone| self.zones.get(zone)).copied().unwrap_or(0)
    }
}
