//! The objects of one resource: by key, and the keys by indexed value. A persistent map, like every part of a snapshot.

use std::{ops::Bound, sync::Arc};

use imbl::{OrdMap, OrdSet};

use super::{Header, NAME_INDEX, Object};

/// Objects of one resource by `namespace/name` (or `name`), in the order of their bytes, with their indexes.
#[derive(Clone, Debug, Default)]
pub struct Table {
    objects: OrdMap<Arc<str>, Arc<Object>>,
    /// By index name.
    indexes: OrdMap<Arc<str>, Keys>,
    /// How many objects each namespace has that has any.
    namespaces: OrdMap<Arc<str>, usize>,
}

/// The value and the key of each object that has an index.
type Keys = OrdSet<(Arc<str>, Arc<str>)>;

/// A key and its object.
pub type Row<'a> = (&'a Arc<str>, &'a Arc<Object>);

impl Table {
    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// How many objects a namespace has.
    pub fn count_in(&self, namespace: &str) -> usize {
        self.namespaces.get(namespace).copied().unwrap_or_default()
    }

    /// How many namespaces have any. Costs the same however many they are.
    pub fn namespaces(&self) -> usize {
        self.namespaces.len()
    }

    /// How many have `value` under `index`, in a namespace or in all, counted up to `most`. The objects are not
    /// touched.
    pub fn count_by(&self, (index, value): (&str, &str), namespace: Option<&str>, most: usize) -> usize {
        let prefix = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
        let Some(keys) = self.indexes.get(index) else { return 0 };
        let from = Bound::Included((Arc::from(value), Arc::from(&*prefix)));
        let range = keys.range::<_, (Arc<str>, Arc<str>)>((from, Bound::Unbounded));
        range.take_while(|(own, key)| **own == *value && key.starts_with(&prefix)).take(most).count()
    }

    /// The object with this key.
    pub fn get(&self, key: &str) -> Option<Row<'_>> {
        self.objects.get_key_value(key)
    }

    /// Objects whose key starts with `prefix`, in order, those up to and with `after` left out.
    pub fn list<'a>(&'a self, prefix: &'a str, after: Option<&str>) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(Arc::from(after)),
            _ => Bound::Included(Arc::from(prefix)),
        };
        let end = end_of(prefix);
        let is_bounded = prefix.is_empty() || end.is_some();
        let to = end.map_or(Bound::Unbounded, Bound::Excluded);
        // A range that ends before it begins is none.
        let is_empty = match (&from, &to) {
            (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
            _ => false,
        };
        let range = (!is_empty).then(|| self.objects.range::<_, Arc<str>>((from, to)));
        range.into_iter().flatten().take_while(move |(key, _)| is_bounded || key.starts_with(prefix))
    }

    /// The same, of those with `value` under `index` alone. Costs nothing for the others.
    pub fn list_by<'a>(
        &'a self,
        index: &str,
        value: &'a str,
        prefix: &'a str,
        after: Option<&str>,
    ) -> Box<dyn Iterator<Item = Row<'a>> + Send + 'a> {
        if index == NAME_INDEX {
            return Box::new(self.list_named(value, prefix, after));
        }
        let Some(keys) = self.indexes.get(index) else { return Box::new(std::iter::empty()) };
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded((Arc::from(value), Arc::from(after))),
            _ => Bound::Included((Arc::from(value), Arc::from(prefix))),
        };
        let range = keys.range::<_, (Arc<str>, Arc<str>)>((from, Bound::Unbounded));
        let own = range.take_while(move |(own, key)| **own == *value && key.starts_with(prefix));
        Box::new(own.filter_map(|(_, key)| self.get(key)))
    }

    /// The objects of that name: one look-up for each namespace that has objects.
    fn list_named<'a>(
        &'a self,
        name: &'a str,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let after: Option<Box<str>> = after.map(Box::from);
        // The namespaces before it are done.
        let mut from: Option<Arc<str>> = Some(Arc::from(prefix));
        std::iter::from_fn(move || {
            loop {
                let range = self.objects.range::<_, Arc<str>>((Bound::Included(from.take()?), Bound::Unbounded));
                let (first, _) = range.into_iter().next().filter(|(key, _)| key.starts_with(prefix))?;
                let key = match first.split_once('/') {
                    Some((namespace, _)) => {
                        // The character after the slash: no key of the namespace comes behind it.
                        from = Some(Arc::from(format!("{namespace}0")));
                        format!("{namespace}/{name}")
                    }
                    // Without namespaces, there is one such object at most, and this look-up is the last.
                    None => name.to_owned(),
                };
                let found = self.get(&key).filter(|_| after.as_deref().is_none_or(|after| *key > *after));
                if found.is_some() || from.is_none() {
                    return found;
                }
            }
        })
    }

    /// Puts an object in its place.
    pub fn put(&mut self, key: Arc<str>, object: Arc<Object>) {
        let previous = self.objects.insert(key.clone(), object.clone());
        if previous.is_none() {
            self.count_one_more(&key);
        }
        let previous = previous.as_ref().map(|previous| previous.header());
        if previous.is_some_and(|previous| previous.terms().eq(object.header().terms())) {
            return;
        }
        if let Some(previous) = previous {
            self.remove_terms(&key, previous);
        }
        for (index, value) in object.header().terms() {
            let keys = match self.indexes.get_mut(index) {
                Some(keys) => keys,
                None => self.indexes.entry(Arc::from(index)).or_default(),
            };
            // Objects of one value share its text.
            let value: Arc<str> = Arc::from(value);
            let known = keys.get_next(&(value.clone(), Arc::default())).filter(|(known, _)| *known == value);
            let value = known.map_or(value, |(known, _)| known.clone());
            keys.insert((value, key.clone()));
        }
    }

    /// Removes the object with this key.
    pub fn remove(&mut self, key: &str) {
        if let Some((key, object)) = self.objects.remove_with_key(key) {
            self.remove_terms(&key, object.header());
            self.count_one_less(&key);
        }
    }

    fn count_one_more(&mut self, key: &str) {
        let Some((namespace, _)) = key.split_once('/') else { return };
        match self.namespaces.get_mut(namespace) {
            Some(count) => *count = count.saturating_add(1),
            None => drop(self.namespaces.insert(Arc::from(namespace), 1)),
        }
    }

    fn count_one_less(&mut self, key: &str) {
        let Some((namespace, _)) = key.split_once('/') else { return };
        let Some(count) = self.namespaces.get_mut(namespace) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.namespaces.remove(namespace);
        }
    }

    fn remove_terms(&mut self, key: &Arc<str>, header: Header<'_>) {
        for (index, value) in header.terms() {
            if let Some(keys) = self.indexes.get_mut(index) {
                keys.remove(&(Arc::from(value), key.clone()));
            }
        }
    }
}

/// The first key behind all that start with this namespace and a slash. Nothing for any other prefix.
fn end_of(prefix: &str) -> Option<Arc<str>> {
    // The character after the slash.
    Some(format!("{}0", prefix.strip_suffix('/')?).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventType, tests::draft};

    #[test]
    fn a_list_has_the_keys_with_its_prefix_after_a_key_and_no_others() {
        let keys = ["a", "a-b/x", "a/", "a/x", "a/y", "a0", "a0/x", "b/x"];
        let mut table = Table::default();
        for key in keys {
            table.put(key.into(), Arc::new(Object::new(draft(key), 1, EventType::Added)));
        }
        for prefix in ["", "a", "a/", "a/x", "a0/", "b/", "c/", "/"] {
            for after in keys.map(Some).into_iter().chain([None, Some("zz")]) {
                let listed: Vec<&str> = table.list(prefix, after).map(|(key, _)| &**key).collect();
                let is_meant = |key: &&str| key.starts_with(prefix) && after.is_none_or(|after| *key > after);
                assert_eq!(listed, keys.into_iter().filter(is_meant).collect::<Vec<_>>(), "{prefix} after {after:?}");
            }
        }
    }

    #[test]
    fn a_table_knows_how_many_objects_each_namespace_has() {
        let mut table = Table::default();
        let put = |table: &mut Table, key: &str| {
            table.put(key.into(), Arc::new(Object::new(draft(key), 1, EventType::Added)));
        };
        for key in ["a/x", "a/y", "a-b/x", "b/x", "cluster", "a/x"] {
            put(&mut table, key);
        }
        let counts = |table: &Table| ["a", "a-b", "b", "c", "cluster"].map(|namespace| table.count_in(namespace));
        assert_eq!(counts(&table), [2, 1, 1, 0, 0], "what is put again counts once");
        let before = table.clone();
        for key in ["a/x", "b/x", "b/y", "cluster", "none"] {
            table.remove(key);
        }
        assert_eq!(counts(&table), [1, 1, 0, 0, 0]);
        assert_eq!(table.namespaces.len(), 2, "one without objects is forgotten");
        assert_eq!(counts(&before), [2, 1, 1, 0, 0], "a snapshot stays as it was");
    }
}
