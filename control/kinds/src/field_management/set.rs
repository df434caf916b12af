//! Sets of fields, and what can be done with them.
//!
//! A set is a tree of path elements. A node can be a member itself (`.` in `FieldsV1`), have members below it, or both:
//! to be a member says nothing of what is below, and the other way round.

use std::cmp::Ordering;

use super::path::PathElement;

/// A set of fields of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet<'a> {
    /// Sorted by element; every entry is a member or has members below.
    entries: Vec<Entry<'a>>,
}

/// One node of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The step from the node above.
    pub element: PathElement<'a>,
    /// Whether the node itself is in the set.
    pub member: bool,
    /// What is in the set below it.
    pub below: FieldSet<'a>,
}

impl Entry<'_> {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl<'a> FieldSet<'a> {
    /// Of entries in any order; each element stands once, and those with nothing in them are left out.
    pub fn of(mut entries: Vec<Entry<'a>>) -> Self {
        entries.retain(|entry| !entry.is_empty());
        if !entries.is_sorted_by(|a, b| a.element < b.element) {
            entries.sort_by(|a, b| a.element.cmp(&b.element));
        }
        Self { entries }
    }

    /// Of entries in any order, of which several may have one element.
    pub fn of_any(mut entries: Vec<Entry<'a>>) -> Self {
        if entries.is_sorted_by(|a, b| a.element < b.element) {
            return Self::of(entries);
        }
        entries.sort_by(|a, b| a.element.cmp(&b.element));
        let mut out: Vec<Entry<'a>> = Vec::with_capacity(entries.len());
        for entry in entries {
            match out.last_mut().filter(|last| last.element == entry.element) {
                Some(last) => {
                    last.member |= entry.member;
                    last.below = std::mem::take(&mut last.below).union(entry.below);
                }
                None => out.push(entry),
            }
        }
        Self::of(out)
    }

    /// A set of one path.
    pub fn of_path(path: &[PathElement<'a>]) -> Self {
        let Some((first, rest)) = path.split_first() else { return Self::default() };
        let (member, below) = (rest.is_empty(), Self::of_path(rest));
        Self { entries: vec![Entry { element: first.clone(), member, below }] }
    }

    /// The nodes right below the root, in order.
    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many fields are in it.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.iter().map(|entry| usize::from(entry.member) + entry.below.len()).sum()
    }

    fn position(&self, element: &PathElement<'_>) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.element.cmp(element))
    }

    /// The node right below the root with this element.
    pub fn get(&self, element: &PathElement<'_>) -> Option<&Entry<'a>> {
        self.position(element).ok().map(|at| &self.entries[at])
    }

    /// Whether the field at `path` is in the set.
    #[cfg(test)]
    pub fn has(&self, path: &[PathElement<'_>]) -> bool {
        match path {
            [] => false,
            [last] => self.get(last).is_some_and(|entry| entry.member),
            [first, rest @ ..] => self.get(first).is_some_and(|entry| entry.below.has(rest)),
        }
    }

    /// Everything that is in one of the two.
    pub fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut out = Vec::with_capacity(self.entries.len().max(other.entries.len()));
        let (mut left, mut right) = (self.entries.into_iter().peekable(), other.entries.into_iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) => a.element.cmp(&b.element),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            match order {
                Ordering::Less => out.extend(left.next()),
                Ordering::Greater => out.extend(right.next()),
                Ordering::Equal => {
                    let (Some(a), Some(b)) = (left.next(), right.next()) else { break };
                    let (member, below) = (a.member || b.member, a.below.union(b.below));
                    out.push(Entry { element: a.element, member, below });
                }
            }
        }
        Self { entries: out }
    }

    /// What is in both.
    pub fn intersection(&self, other: &FieldSet<'_>) -> Self {
        let mut out = Vec::new();
        self.pairs(other, |entry, twin| {
            let Some(twin) = twin else { return };
            let (member, below) = (entry.member && twin.member, entry.below.intersection(&twin.below));
            out.push(Entry { element: entry.element.clone(), member, below });
        });
        Self::of(out)
    }

    /// Takes out what is in `other`. Says whether anything was.
    pub fn subtract(&mut self, other: &FieldSet<'_>) -> bool {
        self.retain_by(other, |entry, twin| {
            let mut changed = entry.member && twin.member;
            entry.member &= !twin.member;
            changed |= entry.below.subtract(&twin.below);
            changed
        })
    }

    /// Takes out what is in `other`, and everything below it. Says whether anything was.
    pub fn subtract_with_below(&mut self, other: &FieldSet<'_>) -> bool {
        self.retain_by(other, |entry, twin| {
            if twin.member {
                entry.member = false;
                entry.below = Self::default();
                return true;
            }
            entry.below.subtract_with_below(&twin.below)
        })
    }

    /// Calls `change` for every entry that `other` has, too, and drops those that are empty then.
    fn retain_by(&mut self, other: &FieldSet<'_>, mut change: impl FnMut(&mut Entry<'a>, &Entry<'_>) -> bool) -> bool {
        if self.is_empty() || other.is_empty() {
            return false;
        }
        let mut changed = false;
        let mut rest = &other.entries[..];
        self.entries.retain_mut(|entry| {
            while rest.first().is_some_and(|twin| twin.element < entry.element) {
                rest = &rest[1..];
            }
            if let Some(twin) = rest.first().filter(|twin| twin.element == entry.element) {
                changed |= change(entry, twin);
            }
            !entry.is_empty()
        });
        changed
    }

    /// Calls `visit` with every entry and the entry of `other` with the same element.
    fn pairs<'s, 'o>(&'s self, other: &'o FieldSet<'_>, mut visit: impl FnMut(&'s Entry<'a>, Option<&'o Entry<'_>>)) {
        let mut rest = &other.entries[..];
        for entry in &self.entries {
            while rest.first().is_some_and(|twin| twin.element < entry.element) {
                rest = &rest[1..];
            }
            visit(entry, rest.first().filter(|twin| twin.element == entry.element));
        }
    }

    /// Every path in it, the members of a node before those below them.
    pub fn paths(&self) -> Vec<Vec<PathElement<'a>>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<PathElement<'a>>, out: &mut Vec<Vec<PathElement<'a>>>) {
        for entry in self.entries.iter().filter(|entry| entry.member) {
            out.push(prefix.iter().chain([&entry.element]).cloned().collect());
        }
        for entry in &self.entries {
            prefix.push(entry.element.clone());
            entry.below.collect(prefix, out);
            prefix.pop();
        }
    }

    /// Keeps only what is at a path of field names, and below it.
    pub fn retain_path(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        self.entries.retain_mut(|entry| {
            if !matches!(&entry.element, PathElement::Field(name) if name == first) {
                return false;
            }
            entry.below.retain_path(rest);
            !entry.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::fields_v1, *};

    fn set(text: &str) -> FieldSet<'_> {
        fields_v1::parse(text).unwrap()
    }

    fn text(set: &FieldSet<'_>) -> String {
        fields_v1::print(set)
    }

    #[test]
    fn a_member_and_what_is_below_it_are_apart() {
        let both = set(r#"{"f:a":{".":{},"f:b":{}},"f:c":{}}"#);
        assert_eq!(both.len(), 3);
        let mut rest = both.clone();
        assert!(rest.subtract(&set(r#"{"f:a":{}}"#)));
        assert_eq!(text(&rest), r#"{"f:a":{"f:b":{}},"f:c":{}}"#);
        let mut rest = both.clone();
        assert!(rest.subtract_with_below(&set(r#"{"f:a":{}}"#)));
        assert_eq!(text(&rest), r#"{"f:c":{}}"#);
        assert!(!rest.subtract(&set(r#"{"f:c":{"f:x":{}}}"#)));
        assert_eq!(text(&both.intersection(&set(r#"{"f:a":{},"f:c":{"f:x":{}}}"#))), r#"{"f:a":{}}"#);
    }

    #[test]
    fn a_path_keeps_what_is_below_it_and_on_the_way() {
        let mut fields =
            set(r#"{"f:spec":{".":{},"f:replicas":{".":{},"f:a":{}},"f:x":{}},"f:status":{"f:replicas":{}}}"#);
        fields.retain_path(&["spec", "replicas"]);
        assert_eq!(text(&fields), r#"{"f:spec":{".":{},"f:replicas":{".":{},"f:a":{}}}}"#);
    }

    fn any_set() -> impl Strategy<Value = FieldSet<'static>> {
        let element = prop_oneof![
            "[a-c]".prop_map(|name| PathElement::Field(name.into())),
            (0..3_i64).prop_map(|n| PathElement::Value(super::super::path::Scalar::Int(n))),
        ];
        let paths = prop::collection::vec(prop::collection::vec(element, 1..4), 0..8);
        paths.prop_map(|paths| paths.iter().fold(FieldSet::default(), |set, path| set.union(FieldSet::of_path(path))))
    }

    proptest! {
        #[test]
        fn the_algebra_agrees_with_sets_of_paths(a in any_set(), b in any_set()) {
            let has = |set: &FieldSet<'_>, path: &[PathElement<'_>]| set.has(path);
            let union = a.clone().union(b.clone());
            let both = a.intersection(&b);
            let mut rest = a.clone();
            let changed = rest.subtract(&b);
            prop_assert_eq!(changed, !both.is_empty());
            for path in union.paths() {
                prop_assert!(has(&a, &path) || has(&b, &path));
                prop_assert_eq!(has(&both, &path), has(&a, &path) && has(&b, &path));
                prop_assert_eq!(has(&rest, &path), has(&a, &path) && !has(&b, &path));
            }
            prop_assert_eq!(union.len() + both.len(), a.len() + b.len());
            prop_assert_eq!(rest.union(both), a);
        }

        #[test]
        fn what_is_printed_is_read_back(a in any_set()) {
            let printed = fields_v1::print(&a);
            prop_assert_eq!(fields_v1::parse(&printed).unwrap(), a);
        }
    }
}
