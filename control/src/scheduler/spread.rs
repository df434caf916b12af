//! How many pods of one group run on each node and in each zone.

use std::collections::HashMap;

use super::node::NodeInfo;

const MOST: i64 = 100;

/// Pods of one group, by place.
#[derive(Clone, Debug, Default)]
pub struct Siblings {
    nodes: HashMap<usize, i64>,
    zones: HashMap<String, i64>,
}

/// The fullest places among the candidates.
#[derive(Clone, Copy, Debug)]
pub struct Crowding {
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

    /// The fullest node and zone among the candidates.
    pub fn crowding(&self, candidates: &[(usize, &NodeInfo)]) -> Crowding {
        let mut crowding = Crowding { node: 0, zone: 0, zoned: false };
        for (index, node) in candidates {
            crowding.node = crowding.node.max(self.on(*index));
            crowding.zone = crowding.zone.max(self.within(node));
            crowding.zoned |= node.node.zone.is_some();
        }
        crowding
    }

    /// 100 where none of the siblings are, 0 where most are. Zones weigh two thirds. Source: `SelectorSpread`.
    pub fn score(&self, index: usize, node: &NodeInfo, crowding: &Crowding) -> i64 {
        let share = |count: i64, most: i64| if most == 0 { MOST } else { (most - count) * MOST / most };
        let by_node = share(self.on(index), crowding.node);
        if !crowding.zoned {
            return by_node;
        }
        let by_zone = if node.node.zone.is_some() { share(self.within(node), crowding.zone) } else { 0 };
        (by_node + 2 * by_zone) / 3
    }

    fn on(&self, index: usize) -> i64 {
        self.nodes.get(&index).copied().unwrap_or(0)
    }

    fn within(&self, node: &NodeInfo) -> i64 {
        node.node.zone.as_ref().and_then(|zone| self.zones.get(zone)).copied().unwrap_or(0)
    }
}
