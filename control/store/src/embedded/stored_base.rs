//! The bases of the file: texts that the rows of objects are encoded against (`packed_row.rs`), each under a number.
//!
//! A base is brought in with the first row that names it, and leaves with the last one, in the same transaction. For
//! that it is counted how many rows name each: by the opening, which reads all rows, and then by each transaction. What
//! one changes counts once it is durable; after an error, the number of the last durable checkpoint tells whether it
//! is.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableError};

use super::packed_row::{self, Bases};
use crate::{Object, base::Base};

/// Number → text.
pub const BASES: TableDefinition<u64, &[u8]> = TableDefinition::new("bases");

/// How many more rows, or fewer, name each base.
type Changes = HashMap<u64, i64>;

/// What is known of the bases in the file.
#[derive(Debug, Default)]
pub struct StoredBases {
    /// The last number that was given to a base.
    last: u64,
    /// How many rows name each base. Nothing before the rows were read: until then, no base leaves the file.
    uses: Option<HashMap<u64, i64>>,
    /// Bases that no row names.
    unused: Vec<u64>,
    /// What a checkpoint with this number changes, until it is known whether it is durable.
    pending: Option<(u64, Changes)>,
}

impl StoredBases {
    /// The file was opened: the number of its last durable checkpoint, and the greatest number of its bases.
    pub fn opened(&mut self, checkpoint: u64, last: u64) {
        self.last = self.last.max(last);
        if self.pending.as_ref().is_some_and(|(pending, _)| *pending == checkpoint) {
            self.committed();
        }
        self.pending = None;
    }

    /// The rows were read: so many of them name each of these bases, and others that are not there.
    pub fn counted(&mut self, bases: &Bases, uses: HashMap<u64, i64>) {
        self.unused = bases.keys().filter(|number| !uses.contains_key(number)).copied().collect();
        self.uses = Some(uses);
    }

    /// A checkpoint with this number will make `changes`.
    pub fn will_change(&mut self, checkpoint: u64, changes: Changes) {
        self.pending = Some((checkpoint, changes));
    }

    /// The pending checkpoint is durable.
    pub fn committed(&mut self) {
        let Some((_, changes)) = self.pending.take() else { return };
        let Some(uses) = &mut self.uses else { return };
        self.unused.clear();
        for (number, change) in changes {
            let count = uses.entry(number).or_default();
            *count = count.saturating_add(change);
            if *count <= 0 {
                uses.remove(&number);
            }
        }
    }
}

/// Counts the rows that name each base.
pub fn count(uses: &mut HashMap<u64, i64>, row: &[u8]) {
    if let Some(number) = packed_row::base_of(row) {
        let count = uses.entry(number).or_default();
        *count = count.saturating_add(1);
    }
}

/// All bases of the file.
pub fn read(transaction: &ReadTransaction) -> Result<Bases, redb::Error> {
    let table = match transaction.open_table(BASES) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Bases::new()),
        opened => opened?,
    };
    let mut bases = Bases::new();
    for entry in table.iter()? {
        let (number, text) = entry?;
        bases.insert(number.value(), Base::stored(number.value(), text.value()));
    }
    Ok(bases)
}

/// The base with this number.
pub fn get(bases: &Table<'_, u64, &'static [u8]>, number: u64) -> Result<Option<Arc<Base>>, redb::StorageError> {
    Ok(bases.get(number)?.map(|text| Base::stored(number, text.value())))
}

/// Rows that a transaction writes, with the bases that they name.
pub struct RowWriter<'a, 't> {
    bases: Table<'t, u64, &'static [u8]>,
    stored: &'a mut StoredBases,
    /// Bases that the table has.
    there: HashSet<u64>,
    changes: Changes,
}

impl<'a, 't> RowWriter<'a, 't> {
    /// Writes to the table [`BASES`].
    pub fn new(bases: Table<'t, u64, &'static [u8]>, stored: &'a mut StoredBases) -> Self {
        Self { bases, stored, there: HashSet::new(), changes: Changes::new() }
    }

    /// The row of an object whose program has this mark. Its base is in the table from then on.
    pub fn row(&mut self, object: &Object, mark: Option<u64>) -> Result<Vec<u8>, redb::StorageError> {
        let Some(base) = object.packed().base else { return Ok(packed_row::row(object, mark, None)) };
        let last = &mut self.stored.last;
        let number = base.number_or(|| {
            *last = last.saturating_add(1);
            *last
        });
        if self.there.insert(number) && self.bases.get(number)?.is_none() {
            self.bases.insert(number, base.text())?;
        }
        self.change(number, 1);
        Ok(packed_row::row(object, mark, Some(number)))
    }

    /// A row was removed, or another took its place.
    pub fn removed(&mut self, row: &[u8]) {
        if let Some(number) = packed_row::base_of(row) {
            self.change(number, -1);
        }
    }

    /// Removes the bases that no row names any more. Answers with what the transaction changes.
    pub fn finish(mut self) -> Result<Changes, redb::StorageError> {
        let Some(uses) = &self.stored.uses else { return Ok(self.changes) };
        let left = |number: &u64, change: i64| uses.get(number).copied().unwrap_or_default().saturating_add(change);
        let released = self.changes.iter().filter(|(number, change)| left(number, **change) <= 0);
        let released = released.map(|(number, _)| *number);
        let unused = self.stored.unused.iter().filter(|number| !self.changes.contains_key(number)).copied();
        for number in released.chain(unused) {
            self.bases.remove(number)?;
        }
        Ok(self.changes)
    }

    fn change(&mut self, number: u64, by: i64) {
        let change = self.changes.entry(number).or_default();
        *change = change.saturating_add(by);
    }
}
