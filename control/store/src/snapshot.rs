//! All objects at one revision, as persistent maps: a snapshot is a cheap clone, and a change copies only a path.

use std::sync::Arc;

use imbl::OrdMap;

use super::{
    Change, CommitError, Condition, Draft, Event, EventType, Key, Object, Remade, Requirement, Table, Transaction,
    Write, references::References, table::Row,
};

/// All objects at one revision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The revision of the last write that it holds.
    pub revision: u64,
    tables: OrdMap<Arc<str>, Table>,
    /// It tells the past of one resource; all others are as they were later.
    rewound: bool,
}

impl Snapshot {
    /// The object with this key.
    pub fn get(&self, resource: &str, name: &str) -> Option<&Arc<Object>> {
        Some(self.entry(resource, name)?.1)
    }

    /// The object with the key it is kept under.
    pub fn entry(&self, resource: &str, name: &str) -> Option<Row<'_>> {
        self.tables.get(resource)?.get(name)
    }

    /// Objects of `resource` whose key starts with `prefix`, in order, those up to and with `after` left out.
    pub fn list<'a>(
        &'a self,
        resource: &str,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = Row<'a>> + use<'a> {
        self.tables.get(resource).map(|table| table.list(prefix, after)).into_iter().flatten()
    }

    /// The same, of the objects alone that have `value` under `index` ([`Header::indexes`](super::Header), or
    /// [`NAME_INDEX`](super::NAME_INDEX)). The others are not touched.
    pub fn list_by<'a>(
        &'a self,
        resource: &str,
        (index, value): (&str, &'a str),
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = Row<'a>> + use<'a> {
        self.tables.get(resource).map(|table| table.list_by(index, value, prefix, after)).into_iter().flatten()
    }

    /// How many objects `resource` has.
    pub fn count(&self, resource: &str) -> usize {
        self.tables.get(resource).map_or(0, Table::len)
    }

    /// How many of them are in a namespace. Costs the same however many they are.
    pub fn count_in(&self, resource: &str, namespace: &str) -> usize {
        self.tables.get(resource).map_or(0, |table| table.count_in(namespace))
    }

    /// How many namespaces have any of them: so many look-ups it takes to find those of one name in all. Costs the same
    /// however many they are.
    pub fn count_namespaces(&self, resource: &str) -> usize {
        self.tables.get(resource).map_or(0, Table::namespaces)
    }

    /// How many of them have `value` under `index`, in a namespace or in all, counted up to `most`.
    pub fn count_by(&self, resource: &str, term: (&str, &str), namespace: Option<&str>, most: usize) -> usize {
        self.tables.get(resource).map_or(0, |table| table.count_by(term, namespace, most))
    }

    /// The resources that have, or had, objects.
    pub fn resources(&self) -> impl Iterator<Item = (&Arc<str>, &Table)> {
        self.tables.iter()
    }

    /// Takes back the changes of one resource after `revision`: `events` are all of them, in order.
    pub fn rewind(&mut self, resource: &str, revision: u64, events: &[Arc<Event>]) {
        let table = self.tables.entry(Arc::from(resource)).or_default();
        for event in events.iter().rev() {
            match &event.previous {
                Some(previous) => table.put(event.key.name.clone(), previous.clone()),
                None => table.remove(&event.key.name),
            }
        }
        self.revision = revision;
        self.rewound = true;
    }

    /// Whether it tells the past of one resource only.
    pub fn is_rewound(&self) -> bool {
        self.rewound
    }

    /// Puts an object read from disk in its place.
    pub fn load(&mut self, key: Key, object: Arc<Object>) {
        self.tables.entry(key.resource).or_default().put(key.name, object);
    }

    /// What `remake` makes of the objects of a resource.
    pub fn remake(&self, resource: &str, remake: &dyn Fn(&Object) -> Option<Draft>) -> Remade {
        let (resource, mut references) = (Arc::from(resource), References::default());
        let mut made = |object| remade(object, remake, (&resource, &mut references));
        let objects = self.list(&resource, "", None);
        objects.map(|(key, object)| (key.clone(), (object.revision, made(object)))).collect()
    }

    /// Puts what was made of the objects of a resource in their place, and what `remake` makes of those that were
    /// written since.
    pub fn reread(&mut self, resource: &str, known: &Remade, remake: &dyn Fn(&Object) -> Option<Draft>) {
        let Some(table) = self.tables.get_mut(resource) else { return };
        let (resource, mut references) = (Arc::from(resource), References::default());
        let put = |(key, object): Row<'_>| {
            let made = match known.get(key) {
                Some((revision, made)) if *revision == object.revision => made.clone(),
                _ => remade(object, remake, (&resource, &mut references)),
            };
            Some((key.clone(), made?))
        };
        let objects: Vec<(Arc<str>, Arc<Object>)> = table.list("", None).filter_map(put).collect();
        for (key, object) in objects {
            table.put(key, object);
        }
    }

    /// Makes all writes of a transaction at the next revisions and adds their events, or changes nothing and says why.
    pub fn apply(
        &mut self,
        transaction: Transaction,
        events: &mut Vec<Event>,
        references: &mut References,
    ) -> Result<Vec<Arc<Object>>, CommitError> {
        for Requirement { key, condition } in transaction.require {
            self.check(key, condition)?;
        }
        let known = events.len();
        // The clone makes the writes copy what they could otherwise change in place; a single write never needs to be
        // undone.
        let before = (transaction.writes.len() > 1).then(|| self.clone());
        for write in transaction.writes {
            match self.write(write, references) {
                Ok(event) => events.push(event),
                Err(error) => {
                    if let Some(before) = before {
                        *self = before;
                    }
                    events.truncate(known);
                    return Err(error);
                }
            }
        }
        Ok(events[known..].iter().map(|event| event.object.clone()).collect())
    }

    /// Answers with what the key holds, if the condition holds of it.
    fn check(&self, key: Key, condition: Condition) -> Result<(Key, Option<Arc<Object>>), CommitError> {
        let current = self.get(&key.resource, &key.name).cloned();
        if condition.holds(current.as_deref()) {
            Ok((key, current))
        } else {
            Err(CommitError::Conflict { key, current })
        }
    }

    /// Makes one write at the next revision, or says why not.
    fn write(
        &mut self,
        Write { key, expect, change }: Write,
        references: &mut References,
    ) -> Result<Event, CommitError> {
        let (key, current) = self.check(key, expect.into())?;
        let revision = self.revision + 1;
        let (event_type, draft) = match (change, &current) {
            (Change::Put(draft), None) => (EventType::Added, draft),
            (Change::Put(draft), Some(_)) => (EventType::Modified, draft),
            (Change::Amend(amendment), Some(current)) => match amendment.make(current) {
                Ok(draft) => (EventType::Modified, draft),
                Err(reason) => return Err(CommitError::Refused { key, reason }),
            },
            (Change::Delete, Some(current)) => (EventType::Deleted, current.draft()),
            (Change::Amend(_) | Change::Delete, None) => return Err(CommitError::Conflict { key, current: None }),
        };
        let object = Arc::new(Object::kept(draft, revision, event_type, (&key.resource, references)));
        self.revision = revision;
        let table = self.tables.entry(key.resource.clone()).or_default();
        match event_type {
            EventType::Deleted => {
                table.remove(&key.name);
                if table.is_empty() {
                    references.forget(&key.resource);
                }
            }
            EventType::Added | EventType::Modified => table.put(key.name.clone(), object.clone()),
        }
        Ok(Event { event_type, key, object, previous: current })
    }
}

/// An object as `remake` makes it, at its revision.
fn remade(
    object: &Object,
    remake: &dyn Fn(&Object) -> Option<Draft>,
    references: (&Arc<str>, &mut References),
) -> Option<Arc<Object>> {
    let made = Object::kept(remake(object)?, object.revision, EventType::Added, references);
    // The file has what it had.
    made.set_seal_key(object.seal_key());
    Some(Arc::new(made))
}
