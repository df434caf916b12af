//! The events of one kind's watch, for all kinds: objects that a new list no longer names are deleted.

use std::collections::BTreeSet;

use kube::runtime::watcher::Event;

use super::ObjectName;

/// What of the objects `K` is kept.
pub(super) trait Keep<K> {
    /// Adds the object, or replaces an earlier version of it. Whether that changed what is kept.
    fn put(&mut self, object: &K) -> bool;
    /// Forgets `name`; nothing where it is not kept. Whether that changed what is kept.
    fn remove(&mut self, name: &ObjectName) -> bool;
    /// All that are kept.
    fn names(&self) -> Vec<ObjectName>;
}

/// How far the lists of one kind have come.
#[derive(Default)]
pub(super) struct Listing {
    /// Names of the list in progress, to remove what it did not name once it is complete.
    seen: BTreeSet<ObjectName>,
    complete_once: bool,
}

impl Listing {
    /// Whether the first list is complete.
    pub fn is_complete(&self) -> bool {
        self.complete_once
    }

    /// Applies `event` to what is kept. A list in progress removes nothing until it is complete, so a watch that is
    /// interrupted and lists again removes nothing in between.
    ///
    /// Returns whether anything changed: what is kept, or that the first list is complete.
    pub fn follow<K: kube::Resource<DynamicType = ()>>(&mut self, event: Event<K>, kept: &mut impl Keep<K>) -> bool {
        match event {
            Event::Init => {
                self.seen.clear();
                false
            }
            Event::InitApply(object) => {
                self.seen.insert(ObjectName::of(object.meta()));
                kept.put(&object)
            }
            Event::InitDone => {
                let seen = std::mem::take(&mut self.seen);
                let mut changed = !std::mem::replace(&mut self.complete_once, true);
                for gone in kept.names().iter().filter(|name| !seen.contains(name)) {
                    changed |= kept.remove(gone);
                }
                changed
            }
            Event::Apply(object) => kept.put(&object),
            Event::Delete(object) => kept.remove(&ObjectName::of(object.meta())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    impl Keep<ConfigMap> for BTreeMap<ObjectName, String> {
        fn put(&mut self, object: &ConfigMap) -> bool {
            let version = object.metadata.resource_version.clone().unwrap_or_default();
            self.insert(ObjectName::of(&object.metadata), version.clone()) != Some(version)
        }

        fn remove(&mut self, name: &ObjectName) -> bool {
            BTreeMap::remove(self, name).is_some()
        }

        fn names(&self) -> Vec<ObjectName> {
            self.keys().cloned().collect()
        }
    }

    fn object(name: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.into());
        object.metadata.resource_version = Some(version.into());
        object
    }

    fn names(kept: &BTreeMap<ObjectName, String>) -> Vec<&str> {
        kept.keys().map(|name| &*name.name).collect()
    }

    #[test]
    fn a_second_list_takes_away_what_it_does_not_name_and_only_at_its_end() {
        let (mut listing, mut kept) = (Listing::default(), BTreeMap::new());
        for event in [Event::Init, Event::InitApply(object("a", "1")), Event::InitApply(object("b", "2"))] {
            listing.follow(event, &mut kept);
            assert!(!listing.is_complete());
        }
        listing.follow(Event::<ConfigMap>::InitDone, &mut kept);
        assert!(listing.is_complete());

        listing.follow(Event::<ConfigMap>::Init, &mut kept);
        listing.follow(Event::InitApply(object("b", "3")), &mut kept);
        assert_eq!(names(&kept), ["a", "b"]);
        listing.follow(Event::<ConfigMap>::InitDone, &mut kept);
        assert_eq!(kept, BTreeMap::from([(ObjectName::new("", "b"), "3".into())]));
    }

    #[test]
    fn a_list_that_is_broken_off_counts_for_nothing_in_the_next() {
        let (mut listing, mut kept) = (Listing::default(), BTreeMap::new());
        listing.follow(Event::<ConfigMap>::Init, &mut kept);
        listing.follow(Event::InitApply(object("a", "1")), &mut kept);
        listing.follow(Event::<ConfigMap>::Init, &mut kept);
        listing.follow(Event::<ConfigMap>::InitDone, &mut kept);
        assert!(kept.is_empty());
    }

    #[test]
    fn a_list_that_names_the_same_changes_nothing_but_that_the_first_is_complete() {
        let (mut listing, mut kept) = (Listing::default(), BTreeMap::new());
        let list = || [Event::Init, Event::InitApply(object("a", "1")), Event::InitDone];
        let mut follow = || list().map(|event| listing.follow(event, &mut kept));
        assert_eq!(follow(), [false, true, true]);
        assert_eq!(follow(), [false, false, false]);
    }

    #[test]
    fn between_lists_objects_come_and_go_one_by_one() {
        let (mut listing, mut kept) = (Listing::default(), BTreeMap::new());
        listing.follow(Event::Apply(object("a", "1")), &mut kept);
        listing.follow(Event::Apply(object("b", "2")), &mut kept);
        listing.follow(Event::Delete(object("a", "3")), &mut kept);
        assert_eq!(names(&kept), ["b"]);
    }
}
