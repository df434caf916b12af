//! What is asked of an object without parsing it, packed into one run of bytes: names, labels, owners, selectable
//! fields and Table cells of tens of thousands of objects are many small strings, which would take more memory apart
//! than the objects' texts do.
//!
//! ```text
//! flags, namespace, name, uid, labels, fields, owners, finalizers, cells
//! ```
//!
//! A string is its length and its bytes; a list is its length in bytes and its items. Numbers are as in `varint.rs`.
//! The same bytes stand in the store's file, but there only the program that wrote them reads them
//! (`embedded/packed_row.rs`): the layout may change.

use std::{borrow::Cow, collections::BTreeMap};

use crate::varint::{put_number, take_number};

/// What a header is made of.
#[derive(Clone, Debug, Default)]
pub struct HeaderParts<'a> {
    /// Empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// `metadata.name`
    pub name: &'a str,
    /// `metadata.uid`
    pub uid: &'a str,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// In any order.
    pub labels: Vec<(&'a str, &'a str)>,
    /// Fields that a field selector may name, beside name and namespace.
    pub fields: BTreeMap<Cow<'static, str>, String>,
    /// The names of the fields by which [`super::Snapshot::list_by`] and [`super::Store::watch_by`] find the object.
    pub indexed: &'a [Cow<'static, str>],
    /// `metadata.ownerReferences`
    pub owners: Vec<Owner<'a>>,
    /// `metadata.finalizers`
    pub finalizers: Vec<&'a str>,
    /// Cells of the Table form.
    pub cells: Vec<StoredCell<'a>>,
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// UID of the owner.
    pub uid: &'a str,
    /// `ReplicaSet`
    pub kind: &'a str,
    /// Name of the owner.
    pub name: &'a str,
    /// Whether the owner is the object's controller: there is one at most.
    pub controller: bool,
}

/// A part of an object's Table row, prepared at the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredCell<'a> {
    /// JSON text, as it is.
    Text(Cow<'a, str>),
    /// The time since this moment (Unix seconds), inside a JSON string: it is filled in when the row is read.
    Age(i64),
}

/// A packed header that belongs to nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedHeader(Box<[u8]>);

/// A packed header where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a>(&'a [u8]);

const DELETING: u8 = 1;
const CONTROLLER: u64 = 1;
const INDEXED: u64 = 1;
/// What kind of cell follows.
const TEXT: u64 = 0;
const AGE: u64 = 1;

impl HeaderParts<'_> {
    /// The parts in one run of bytes.
    pub fn pack(&self) -> PackedHeader {
        let mut out = Vec::with_capacity(512);
        out.push(if self.deleting { DELETING } else { 0 });
        for name in [self.namespace, self.name, self.uid] {
            put_text(&mut out, name);
        }
        let mut labels = self.labels.clone();
        labels.sort_unstable();
        put_list(&mut out, labels, |out, (key, value)| {
            put_text(out, key);
            put_text(out, value);
        });
        put_fields(&mut out, &self.fields, |name| self.indexed.iter().any(|indexed| indexed == name));
        put_list(&mut out, &self.owners, |out, owner| {
            put_number(out, u64::from(owner.controller));
            for text in [owner.uid, owner.kind, owner.name] {
                put_text(out, text);
            }
        });
        put_list(&mut out, &self.finalizers, |out, finalizer| put_text(out, finalizer));
        put_list(&mut out, &self.cells, |out, cell| match cell {
            StoredCell::Text(text) => {
                put_number(out, TEXT);
                put_text(out, text);
            }
            StoredCell::Age(at) => {
                put_number(out, AGE);
                put_number(out, at.cast_unsigned());
            }
        });
        PackedHeader(out.into())
    }
}

impl PackedHeader {
    /// The header.
    pub fn get(&self) -> Header<'_> {
        Header(&self.0)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Default for PackedHeader {
    fn default() -> Self {
        HeaderParts::default().pack()
    }
}

impl<'a> Header<'a> {
    /// The header that is packed in `bytes`. Where they are none, it says less than the object has: see
    /// [`Header::is_whole`].
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether every part can be read to its end, and nothing follows.
    pub(crate) fn is_whole(self) -> bool {
        fn each<'a>(mut items: Rest<'a>, item: impl Fn(&mut Rest<'a>) -> Option<()>) -> Option<()> {
            while !items.0.is_empty() {
                item(&mut items)?;
            }
            Some(())
        }
        let whole = || {
            let mut rest = Rest(self.0);
            rest.0.split_off_first()?;
            (0..3).try_for_each(|_| rest.text().map(drop))?;
            each(rest.list()?, |label| label.label().map(drop))?;
            each(rest.list()?, |field| field.field().map(drop))?;
            each(rest.list()?, |owner| owner.owner().map(drop))?;
            each(rest.list()?, |finalizer| finalizer.text().map(drop))?;
            each(rest.list()?, |cell| cell.cell().map(drop))?;
            rest.0.is_empty().then_some(())
        };
        whole().is_some()
    }

    /// Its bytes.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Its own copy.
    pub fn to_packed(self) -> PackedHeader {
        PackedHeader(self.0.into())
    }

    /// The same with other selectable fields; no object is found by them.
    pub fn with_fields(self, fields: &BTreeMap<Cow<'static, str>, String>) -> PackedHeader {
        let before = self.0.len().saturating_sub(self.after(1).0.len());
        let mut out = self.0.get(..before).unwrap_or_default().to_vec();
        put_fields(&mut out, fields, |_| false);
        out.extend_from_slice(self.after(2).0);
        PackedHeader(out.into())
    }

    /// Whether `metadata.deletionTimestamp` is set.
    pub fn deleting(self) -> bool {
        self.0.first().is_some_and(|flags| flags & DELETING != 0)
    }

    /// Empty for cluster-scoped objects.
    pub fn namespace(self) -> &'a str {
        self.name_at(0)
    }

    /// `metadata.name`
    pub fn name(self) -> &'a str {
        self.name_at(1)
    }

    /// `metadata.uid`
    pub fn uid(self) -> &'a str {
        self.name_at(2)
    }

    /// Sorted by key.
    pub fn labels(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.list(0).items(Rest::label)
    }

    /// The value of a label.
    pub fn label(self, key: &str) -> Option<&'a str> {
        // A list by label asks this of every object: what is passed over is not read as text.
        let mut labels = self.list(0);
        while !labels.0.is_empty() {
            let (name, value) = (labels.bytes()?, labels.bytes()?);
            if name == key.as_bytes() {
                return std::str::from_utf8(value).ok();
            }
        }
        None
    }

    /// Fields that a field selector may name, beside name and namespace; sorted by name.
    pub fn fields(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.list(1).items(Rest::field).map(|(name, value, _)| (name, value))
    }

    /// The value of a selectable field.
    pub fn field(self, name: &str) -> Option<&'a str> {
        self.fields().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The indexes by which the object is found, and its value under each.
    pub fn terms(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.list(1).items(Rest::field).filter(|(_, _, indexed)| *indexed).map(|(name, value, _)| (name, value))
    }

    /// `metadata.ownerReferences`
    pub fn owners(self) -> impl Iterator<Item = Owner<'a>> {
        self.list(2).items(Rest::owner)
    }

    /// `metadata.finalizers`
    pub fn finalizers(self) -> impl Iterator<Item = &'a str> {
        self.list(3).items(Rest::text)
    }

    /// Cells of the Table form.
    pub fn cells(self) -> impl Iterator<Item = StoredCell<'a>> {
        self.list(4).items(Rest::cell)
    }

    fn name_at(self, at: usize) -> &'a str {
        let mut rest = Rest(self.0.get(1..).unwrap_or_default());
        for _ in 0..at {
            rest.bytes();
        }
        rest.text().unwrap_or_default()
    }

    /// The list number `at`.
    fn list(self, at: usize) -> Rest<'a> {
        self.after(at).list().unwrap_or_default()
    }

    /// What stands behind so many lists.
    fn after(self, lists: usize) -> Rest<'a> {
        let mut rest = Rest(self.0.get(1..).unwrap_or_default());
        for _ in 0..lists.saturating_add(3) {
            rest.bytes();
        }
        rest
    }
}

/// Bytes that were not read yet.
#[derive(Clone, Copy, Debug, Default)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn number(&mut self) -> Option<u64> {
        take_number(&mut self.0)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.0.split_off(..length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn list(&mut self) -> Option<Self> {
        self.bytes().map(Rest)
    }

    fn label(&mut self) -> Option<(&'a str, &'a str)> {
        Some((self.text()?, self.text()?))
    }

    fn field(&mut self) -> Option<(&'a str, &'a str, bool)> {
        let indexed = self.number()? == INDEXED;
        Some((self.text()?, self.text()?, indexed))
    }

    fn owner(&mut self) -> Option<Owner<'a>> {
        let controller = self.number()? == CONTROLLER;
        Some(Owner { controller, uid: self.text()?, kind: self.text()?, name: self.text()? })
    }

    fn cell(&mut self) -> Option<StoredCell<'a>> {
        match self.number()? {
            TEXT => Some(StoredCell::Text(self.text()?.into())),
            AGE => Some(StoredCell::Age(self.number()?.cast_signed())),
            _ => None,
        }
    }

    /// What `item` reads, until nothing is left.
    fn items<T>(mut self, item: impl Fn(&mut Self) -> Option<T>) -> impl Iterator<Item = T> {
        std::iter::from_fn(move || if self.0.is_empty() { None } else { item(&mut self) })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, put: impl Fn(&mut Vec<u8>, T)) {
    let mut list = Vec::with_capacity(256);
    items.into_iter().for_each(|item| put(&mut list, item));
    put_number(out, list.len() as u64);
    out.extend_from_slice(&list);
}

fn put_fields(out: &mut Vec<u8>, fields: &BTreeMap<Cow<'static, str>, String>, indexed: impl Fn(&str) -> bool) {
    put_list(out, fields, |out, (name, value)| {
        put_number(out, u64::from(indexed(name)));
        put_text(out, name);
        put_text(out, value);
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
        prop::collection::vec(("[a-zé]{0,200}", ".{0,9}"), 0..5)
    }

    fn cell() -> impl Strategy<Value = StoredCell<'static>> {
        prop_oneof![".{0,9}".prop_map(|text| StoredCell::Text(text.into())), any::<i64>().prop_map(StoredCell::Age),]
    }

    proptest! {
        #[test]
        fn what_was_packed_is_read(
            names in ("[a-z]{0,9}", ".{0,300}", "[0-9a-f-]{36}"), deleting: bool, labels in pairs(), fields in pairs(),
            cells in prop::collection::vec(cell(), 0..4),
            owners in prop::collection::vec(("[a-z]{0,9}", any::<bool>()), 0..3)
        ) {
            let mut labels: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let fields: BTreeMap<Cow<'static, str>, String> =
                fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
            let indexed: Vec<Cow<'static, str>> = fields.keys().take(1).cloned().collect();
            let owners: Vec<_> = owners.iter().map(|(name, controller)| {
                Owner { uid: name, kind: "ReplicaSet", name, controller: *controller }
            }).collect();
            let finalizers: Vec<_> = owners.iter().map(|owner| owner.name).collect();
            let packed = HeaderParts {
                namespace: &names.0, name: &names.1, uid: &names.2, deleting, labels: labels.clone(),
                fields: fields.clone(), indexed: &indexed, owners: owners.clone(), finalizers: finalizers.clone(),
                cells: cells.clone(),
            }.pack();
            let header = packed.get();
            labels.sort_unstable();
            prop_assert_eq!((header.namespace(), header.name(), header.uid()), (&*names.0, &*names.1, &*names.2));
            prop_assert_eq!(header.deleting(), deleting);
            prop_assert_eq!(header.labels().collect::<Vec<_>>(), labels);
            let read: Vec<_> = header.fields().collect();
            prop_assert_eq!(read, fields.iter().map(|(name, value)| (&**name, value.as_str())).collect::<Vec<_>>());
            let terms: Vec<_> = header.terms().map(|(name, _)| name.to_owned()).collect();
            prop_assert_eq!(terms, indexed.iter().map(|name| name.to_string()).collect::<Vec<_>>());
            prop_assert_eq!(header.owners().collect::<Vec<_>>(), owners.clone());
            prop_assert_eq!(header.finalizers().collect::<Vec<_>>(), finalizers);
            prop_assert_eq!(header.cells().collect::<Vec<_>>(), cells.clone());
            prop_assert!(header.is_whole());
            let other = header.with_fields(&BTreeMap::from([("x".into(), "y".to_owned())]));
            let other = other.get();
            prop_assert_eq!((other.field("x"), other.terms().count(), other.is_whole()), (Some("y"), 0, true));
            prop_assert_eq!(other.cells().collect::<Vec<_>>(), cells);
            prop_assert_eq!(other.owners().collect::<Vec<_>>(), owners);
        }

        #[test]
        fn any_bytes_are_read_to_an_end_and_a_part_is_not_whole(bytes: Vec<u8>, cut in 0..40_usize) {
            let header = Header::of(&bytes);
            let ends = (header.labels().count(), header.cells().count(), header.terms().count(), header.is_whole());
            prop_assert!(ends.0 <= bytes.len() && ends.1 <= bytes.len() && ends.2 <= bytes.len());
            let packed = HeaderParts { name: "a name", labels: vec![("a", "b")], ..HeaderParts::default() }.pack();
            let part = packed.bytes().get(..cut.min(packed.bytes().len() - 1)).unwrap_or_default();
            prop_assert!(!Header::of(part).is_whole());
        }
    }
}
