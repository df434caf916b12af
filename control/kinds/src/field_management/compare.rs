//! What changed between two states of an object, as sets of fields.
//!
//! Kubernetes compares Go structs, in which some fields are there although no text names them (see
//! [`TypeRef::is_always_there`]): to set such a field for the first time is a change of it, not its addition. It shows
//! in the sets: a field with parts that was added is a member itself.

use serde_json::{Map, Value};

use super::{
    path::PathElement,
    set::{Entry, FieldSet},
    shape::{ItemError, Shape, TypeRef, list_item},
    whole::{is_same, is_zero, leaves_unchanged},
};
use crate::schema::Field;

/// The fields that two states of an object differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference<'a> {
    /// Those that were added, or have another value.
    pub changed: FieldSet<'a>,
    /// Those that are there no more.
    pub removed: FieldSet<'a>,
}

/// One of the two states of a value.
#[derive(Clone, Copy, Debug)]
pub enum State<'a> {
    /// It is not there.
    Absent,
    /// It is there, and nobody set it.
    Zero,
    Is(&'a Value),
}

/// Compares two states of a whole object. A new object is compared with [`State::Zero`].
pub fn compare<'a>(of: TypeRef<'a>, old: State<'a>, new: State<'a>) -> Result<Difference<'a>, ItemError> {
    let FieldSets { changed, removed } = find(of, old, new)?;
    Ok(Difference { changed: changed.below, removed: removed.below })
}

/// What is in each set of one node.
#[derive(Default)]
struct FieldSets<'a> {
    changed: Node<'a>,
    removed: Node<'a>,
}

#[derive(Default)]
struct Node<'a> {
    member: bool,
    below: FieldSet<'a>,
}

/// Entries of both sets that have one parent.
#[derive(Default)]
struct Below<'a> {
    changed: Vec<Entry<'a>>,
    removed: Vec<Entry<'a>>,
}

impl<'a> Below<'a> {
    fn add(&mut self, element: PathElement<'a>, found: FieldSets<'a>) {
        let FieldSets { changed, removed } = found;
        if removed.member || !removed.below.is_empty() {
            let entry = Entry { element: element.clone(), member: removed.member, below: removed.below };
            self.removed.push(entry);
        }
        if changed.member || !changed.below.is_empty() {
            self.changed.push(Entry { element, member: changed.member, below: changed.below });
        }
    }

    /// The node above. It was added or removed itself if one of its states is absent.
    fn node(self, old: State<'_>, new: State<'_>) -> FieldSets<'a> {
        FieldSets {
            changed: Node { member: matches!(old, State::Absent), below: FieldSet::of(self.changed) },
            removed: Node { member: matches!(new, State::Absent), below: FieldSet::of(self.removed) },
        }
    }
}

impl<'a> State<'a> {
    fn value(self) -> Option<&'a Value> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Zero => None,
        }
    }

    fn fields(self) -> Option<&'a Map<String, Value>> {
        self.value().and_then(Value::as_object)
    }

    fn items(self) -> &'a [Value] {
        self.value().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether it can have fields: `null` cannot.
    fn is_object(self) -> bool {
        matches!(self, Self::Zero | Self::Is(Value::Object(_)))
    }
}

fn find<'a>(of: TypeRef<'a>, old: State<'a>, new: State<'a>) -> Result<FieldSets<'a>, ItemError> {
    // `null` takes the form of the other state.
    let (before, after) = (old.value().filter(|v| !v.is_null()), new.value().filter(|v| !v.is_null()));
    let shape = of.shape(after.or(before));
    if let (Some(before), Some(after)) = (before, after) {
        match (of.shape(Some(before)), shape) {
            (Shape::Map(_), Shape::Leaf) => return replaced(of, before, after),
            (Shape::Leaf, Shape::Map(_)) => return replaced(of, before, after),
            _ => {}
        }
    }
    match shape {
        Shape::Leaf => Ok(leaf(of, old, new)),
        Shape::Struct(_) | Shape::Map(_) => object(of, shape, old, new),
        Shape::Set | Shape::KeyedList { .. } => list(of, shape, old, new),
    }
}

/// A value without a schema that has another form than before: what was below it is removed, what is below it now is
/// added, and it was changed itself.
fn replaced<'a>(of: TypeRef<'a>, before: &'a Value, after: &'a Value) -> Result<FieldSets<'a>, ItemError> {
    let gone = match before {
        Value::Object(_) => find(of, State::Is(before), State::Absent)?.removed.below,
        _ => FieldSet::default(),
    };
    let added = match after {
        Value::Object(_) => find(of, State::Absent, State::Is(after))?.changed.below,
        _ => FieldSet::default(),
    };
    Ok(FieldSets { changed: Node { member: true, below: added }, removed: Node { member: false, below: gone } })
}

fn leaf<'a>(of: TypeRef<'_>, old: State<'_>, new: State<'_>) -> FieldSets<'a> {
    let differs = match (old, new) {
        (State::Is(old), State::Is(new)) if of.is_as_written() => old != new && !leaves_unchanged(of, old, new),
        (State::Is(old), State::Is(new)) => !is_same(of, old, new),
        (State::Zero, State::Is(value)) | (State::Is(value), State::Zero) => !is_zero(of, value),
        (State::Absent, _) | (_, State::Absent) => true,
        (State::Zero, State::Zero) => false,
    };
    let removed = matches!(new, State::Absent) && !matches!(old, State::Absent);
    let node = |member| Node { member, below: FieldSet::default() };
    FieldSets { changed: node(differs && !removed), removed: node(removed) }
}

/// A field of an object in one state, with this value if it has one. What `omitempty` leaves out of a Go struct is not
/// there.
fn child<'a>(of: TypeRef<'a>, parent: State<'a>, value: Option<&'a Value>, known: Option<&Field>) -> State<'a> {
    let is_left_out = |value: &&Value| known.is_some_and(|field| of.is_in_structs() && of.is_left_out(field, value));
    match value.filter(|value| !is_left_out(value)) {
        Some(value) => State::Is(value),
        None if known.is_some_and(|field| of.is_always_there(field)) && parent.is_object() => State::Zero,
        None => State::Absent,
    }
}

fn object<'a>(of: TypeRef<'a>, shape: Shape<'a>, old: State<'a>, new: State<'a>) -> Result<FieldSets<'a>, ItemError> {
    let (before, after) = (old.fields(), new.fields());
    let known = match shape {
        Shape::Struct(object) => Some(object),
        _ => None,
    };
    let has_parts = |state: State<'_>, fields: Option<&Map<String, Value>>| {
        fields.is_some_and(|fields| !fields.is_empty())
            || state.is_object() && known.is_some_and(|object| of.always_there(object).next().is_some())
    };
    if !has_parts(old, before) && !has_parts(new, after) {
        return Ok(leaf(of, old, new));
    }
    let mut below = Below::default();
    if before.is_none() {
        // Most of a new object was set.
        below.changed.reserve(after.map_or(0, Map::len));
    }
    let mut one = |name: &'a str, is: Option<&'a Value>| -> Result<(), ItemError> {
        let (field, known) = match shape {
            Shape::Struct(object) => of.known_field(object, name),
            Shape::Map(item) => (Some(item), None),
            _ => (None, None),
        };
        // Unknown fields are never stored.
        let Some(field) = field else { return Ok(()) };
        let was = before.and_then(|fields| fields.get(name));
        let (was, is) = (child(of, old, was, known), child(of, new, is, known));
        if matches!((was, is), (State::Absent, State::Absent)) {
            return Ok(());
        }
        let found = find(field, was, is)?;
        below.add(PathElement::field(name), found);
        Ok(())
    };
    for (name, value) in after.into_iter().flatten() {
        // The same in both states, and nothing below it to look at.
        let same = !value.is_object() && !value.is_array();
        if !(same && before.and_then(|fields| fields.get(name)) == Some(value)) {
            one(name, Some(value))?;
        }
    }
    for name in before.into_iter().flatten().map(|(name, _)| name) {
        if !after.is_some_and(|fields| fields.contains_key(name)) {
            one(name, None)?;
        }
    }
    // What no text names is the same in two states that are both there.
    if let Some(object) = known.filter(|_| old.is_object() != new.is_object()) {
        for (field, _) in of.always_there(object) {
            let named = |fields: Option<&Map<String, Value>>| fields.is_some_and(|f| f.contains_key(&*field.name));
            if !named(before) && !named(after) {
                one(&field.name, None)?;
            }
        }
    }
    Ok(below.node(old, new))
}

fn list<'a>(of: TypeRef<'a>, shape: Shape<'a>, old: State<'a>, new: State<'a>) -> Result<FieldSets<'a>, ItemError> {
    let (before, after) = (old.items(), new.items());
    if before.is_empty() && after.is_empty() {
        return Ok(leaf(of, old, new));
    }
    let mut below = Below::default();
    if before != after {
        let (before, after) = (by_element(shape, before)?, by_element(shape, after)?);
        let (mut before, mut after) = (&before[..], &after[..]);
        loop {
            let element = match (before.first(), after.first()) {
                (Some(old), Some(new)) => {
                    if old.0 <= new.0 {
                        &old.0
                    } else {
                        &new.0
                    }
                }
                (Some((element, _)), None) | (None, Some((element, _))) => element,
                (None, None) => break,
            };
            let element = element.clone();
            let (old, new) = (take(&mut before, &element), take(&mut after, &element));
            let found = items(of, shape, old, new)?;
            below.add(element, found);
        }
    }
    Ok(below.node(old, new))
}

type Keyed<'a> = (PathElement<'a>, &'a Value);

fn by_element<'a>(shape: Shape<'a>, items: &'a [Value]) -> Result<Vec<Keyed<'a>>, ItemError> {
    let mut keyed = Vec::with_capacity(items.len());
    for item in items {
        keyed.push((list_item(shape, item)?, item));
    }
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(keyed)
}

/// Takes the items with this element off the front.
fn take<'k, 'a>(keyed: &mut &'k [Keyed<'a>], element: &PathElement<'_>) -> &'k [Keyed<'a>] {
    let count = keyed.iter().take_while(|(found, _)| found == element).count();
    let (taken, rest) = keyed.split_at(count);
    *keyed = rest;
    taken
}

/// The items with one element. Where several have it, they count as one whole.
fn items<'a>(
    of: TypeRef<'a>,
    shape: Shape<'a>,
    old: &[Keyed<'a>],
    new: &[Keyed<'a>],
) -> Result<FieldSets<'a>, ItemError> {
    let single = |items: &[Keyed<'a>]| items.first().map_or(State::Absent, |(_, item)| State::Is(item));
    let one = |old: State<'a>, new: State<'a>| match shape {
        Shape::KeyedList { item, .. } => find(item, old, new),
        _ => Ok(leaf(of.plain_item().unwrap_or(of), old, new)),
    };
    match (old, new) {
        ([] | [_], [] | [_]) => one(single(old), single(new)),
        ([_, _, ..], [_, _, ..]) => {
            let same = old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.1 == new.1);
            Ok(FieldSets { changed: Node { member: !same, ..Node::default() }, ..FieldSets::default() })
        }
        ([_, _, ..], new) => {
            let mut found = match new {
                [] => FieldSets::default(),
                new => one(State::Absent, single(new))?,
            };
            found.removed.member = true;
            Ok(found)
        }
        (old, _) => {
            let mut found = match old {
                [] => FieldSets::default(),
                old => one(single(old), State::Absent)?,
            };
            found.changed.member = true;
            Ok(found)
        }
    }
}

#[cfg(test)]
mod tests;
