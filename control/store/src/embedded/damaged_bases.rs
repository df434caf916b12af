//! Bases of the file that are damaged or missing. Many objects share one: what is lost with it may be half a cluster,
//! and a control service that went on without would delete what belongs to the objects that it does not see.
//!
//! So an opening refuses such a file, unless it is told to go on; what is lost is then kept aside (`quarantine.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What an opening does about objects that cannot be read since their base is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DamagedBases {
    /// It fails, and changes nothing of them.
    #[default]
    Refuse,
    /// It keeps them aside, and goes on without them.
    Quarantine,
}

/// What cannot be read since bases are damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseDamage {
    bases: BTreeSet<u64>,
    /// How many objects of each resource.
    objects: BTreeMap<Box<str>, u64>,
}

impl BaseDamage {
    /// The object with this key needs the base with this number.
    pub fn note(&mut self, key: &str, base: u64) {
        let resource = key.split_once('/').map_or(key, |(resource, _)| resource);
        self.bases.insert(base);
        match self.objects.get_mut(resource) {
            Some(count) => *count = count.saturating_add(1),
            None => drop(self.objects.insert(resource.into(), 1)),
        }
    }

    /// Nothing is lost.
    pub fn is_empty(&self) -> bool {
        self.bases.is_empty()
    }

    /// How many objects cannot be read.
    pub fn objects(&self) -> u64 {
        self.objects.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// `2 shared texts, without which 812 objects cannot be read (3 of nodes, 809 of pods)`
impl fmt::Display for BaseDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = if self.bases.len() == 1 { "text" } else { "texts" };
        write!(f, "{} shared {texts}, without which {} objects cannot be read (", self.bases.len(), self.objects())?;
        for (at, (resource, count)) in self.objects.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{count} of {resource}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_counted_by_resource() {
        let mut damage = BaseDamage::default();
        assert!(damage.is_empty());
        for (key, base) in [("pods/a/x", 7), ("pods/a/y", 7), ("nodes/n", 9)] {
            damage.note(key, base);
        }
        let told = "2 shared texts, without which 3 objects cannot be read (1 of nodes, 2 of pods)";
        assert_eq!((damage.objects(), damage.to_string().as_str()), (3, told));
    }
}
