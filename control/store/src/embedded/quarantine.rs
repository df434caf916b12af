//! Rows of the file that this program cannot read: moved aside at the opening, with their bytes, so that one of them
//! stops neither the others nor the program, and no later write takes their place unseen.
//!
//! Each opening tries them again: a program that can read one puts it back, if its key is still free. Of several rows
//! under one key the latest comes back.
//!
//! On a full disk nothing can be moved at the opening. The next checkpoint does it then, before all else.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use tracing::{info, warn};

use super::{
    damaged_bases::{BaseDamage, DamagedBases},
    loading::{self, Batch, MadeRow},
    packed_row::{self, Bases, Made, ObjectMaker, RowDecoder, RowError},
    row::RowChange,
    seal_damage::SealDamage,
    stored_base,
    tables::{META, OBJECTS},
    unpacked_rows::UnpackedRow,
};
use crate::{
    Decode, Object,
    seal::{PLAIN_LABEL, QuarantinedKeys, Seal, SealKey, UnsealError},
};

/// As the objects: key → revision and JSON text, whatever is left of them. A further row of a key has [`FURTHER`] and a
/// number after it. Older programs had `'` there, which may be the end of a name: such a row keeps that key.
pub const QUARANTINE: TableDefinition<&str, &[u8]> = TableDefinition::new("quarantine");

/// What follows the key of a further row: no key has it, since names are not empty and have no slash.
const FURTHER: &str = "//";

/// The key that a row in the quarantine had among the objects. What is sealed is bound to it.
fn key_before(aside: &str) -> &str {
    aside.split_once(FURTHER).map_or(aside, |(key, _)| key)
}

/// What becomes of rows that are read.
pub struct RowReader<'a> {
    /// Makes the objects.
    pub decode: &'a dyn Decode,
    /// Takes an object of a resource, with its key in it.
    pub keep: &'a mut dyn FnMut(Arc<str>, Arc<str>, Arc<Object>),
    /// What becomes of objects whose base is damaged.
    pub damaged_bases: DamagedBases,
    /// Opens what is sealed.
    pub seal: Option<&'a dyn Seal>,
}

/// What an opening read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The revision of the last write.
    pub revision: u64,
    /// Rows that are kept aside.
    pub quarantined: u64,
    /// How long the rows of objects and bases are.
    pub row_bytes: u64,
    /// How long the file is.
    pub file_bytes: u64,
    /// The keys without which rows that are kept aside will never be read.
    pub quarantined_keys: QuarantinedKeys,
}

/// Rows that are to be moved, by their keys, in the transaction that makes a revision durable.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// The revision of the store with the rows where they belong.
    pub revision: u64,
    /// To the quarantine.
    unreadable: Vec<String>,
    /// Back from it: the key there, and that among the objects.
    readable: Vec<(String, String)>,
}

/// What an opening found to be done by the next changes.
#[derive(Default)]
pub struct Found {
    /// Rows to be moved.
    pub moves: Option<Moves>,
    /// Rows that the next opening could not take as they are.
    pub unpacked: Vec<UnpackedRow>,
    /// The bases of the file, and how many rows name each.
    pub bases: (Bases, HashMap<u64, i64>),
    /// What cannot be read since bases are damaged. It is among what is to be moved.
    pub damage: BaseDamage,
    /// What cannot be read since keys are missing. The same.
    pub seal_damage: SealDamage,
}

/// Reads every row; those that cannot be read are reported, and are to be moved aside.
///
/// `newer` are writes that the tables lack. Of them, too, those that cannot be read are reported; they are moved at the
/// next opening after the tables have them.
pub fn load(
    database: &Database,
    newer: &[RowChange],
    reader: &mut RowReader<'_>,
) -> Result<(Loaded, Found), redb::Error> {
    let mut loaded = Loaded::default();
    let (mut moves, mut unpacked, mut uses) = (Moves::default(), Vec::new(), HashMap::new());
    let (mut damage, mut seal_damage) = (BaseDamage::default(), SealDamage::default());
    let transaction = database.begin_read()?;
    let bases = stored_base::read(&transaction)?;
    let mut bytes: u64 = bases.values().map(|base| base.text().len() as u64).sum();
    let with = RowDecoder { decode: reader.decode, bases: &bases, seal: reader.seal };
    let objects = transaction.open_table(OBJECTS)?;
    let newest: HashMap<&str, &RowChange> = newer.iter().map(|change| (&*change.key, change)).collect();
    let mut rows = objects.iter()?;
    let next = || {
        let mut batch = Batch::default();
        while !batch.is_full()
            && let Some(entry) = rows.next()
        {
            let (key, row) = entry?;
            stored_base::count(&mut uses, row.value());
            bytes = bytes.saturating_add((key.value().len() as u64).saturating_add(row.value().len() as u64));
            if !newest.contains_key(key.value()) {
                batch.push(key.value(), row.value());
            }
        }
        Ok::<_, redb::Error>(batch)
    };
    loading::make_all(with, next, &mut |made| {
        if let Err((key, RowError::Base { number })) = &made {
            damage.note(key, *number);
        }
        note_seal((&mut seal_damage, &mut loaded.quarantined_keys), &made);
        moves.unreadable.extend(reader.take_or_report(made, &mut unpacked));
    })?;
    loaded.row_bytes = bytes;
    let mut newest_rows = newest.iter().filter_map(|(key, change)| Some((*key, change.value()?)));
    let next = || {
        let mut batch = Batch::default();
        while !batch.is_full()
            && let Some((key, row)) = newest_rows.next()
        {
            batch.push(key, &row);
        }
        Ok::<_, redb::Error>(batch)
    };
    loading::make_all(with, next, &mut |made| {
        note_seal((&mut seal_damage, &mut loaded.quarantined_keys), &made);
        loaded.quarantined += u64::from(reader.take_or_report(made, &mut Vec::new()).is_some());
    })?;
    match transaction.open_table(QUARANTINE) {
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
        Ok(quarantine) => {
            let mut taken: HashSet<String> = HashSet::new();
            for aside in latest_first(&quarantine)? {
                let Some(value) = quarantine.get(aside.as_str())? else { continue };
                let (key, row) = (key_before(&aside), value.value());
                loaded.quarantined += 1;
                stored_base::count(&mut uses, row);
                let is_taken = taken.contains(key) || objects.get(key)?.is_some() || newest.contains_key(key);
                let made = if is_taken { None } else { Some(ObjectMaker::new(with).make(key, row)) };
                let is_plain = match made {
                    Some(Ok(made)) => {
                        reader.take(made);
                        taken.insert(key.to_owned());
                        moves.readable.push((aside.clone(), key.to_owned()));
                        continue;
                    }
                    Some(Err(error)) => {
                        warn!(key, %error, "an object that cannot be read is still kept aside");
                        matches!(error, RowError::Sealed(UnsealError::Plain))
                    }
                    None => {
                        warn!(key, "an object that cannot be served is kept aside: its key is taken");
                        is_sound_plain(with, key, row)
                    }
                };
                let Some((resource, _)) = key.split_once('/') else { continue };
                if let Some(label) = packed_row::label_of(key, row).or(is_plain.then_some(PLAIN_LABEL)) {
                    loaded.quarantined_keys.add(resource, label);
                }
                let is_secret = reader.seal.is_some_and(|seal| seal.key(resource) != SealKey::PLAIN);
                if is_secret && !packed_row::is_sealed(row) {
                    warn!(key, "an object that is kept aside stands in the file without encryption");
                }
            }
        }
    }
    loaded.revision = transaction.open_table(META)?.get("revision")?.map_or(0, |revision| revision.value());
    loaded.revision = newer.last().map_or(loaded.revision, |change| change.revision.max(loaded.revision));
    if moves.unreadable.is_empty() && moves.readable.is_empty() {
        return Ok((loaded, Found { moves: None, unpacked, bases: (bases, uses), damage, seal_damage }));
    }
    // No watch saw the objects go or come: at a new revision, all clients list again.
    loaded.revision += 1;
    loaded.quarantined = loaded.quarantined + moves.unreadable.len() as u64 - moves.readable.len() as u64;
    moves.revision = loaded.revision;
    Ok((loaded, Found { moves: Some(moves), unpacked, bases: (bases, uses), damage, seal_damage }))
}

fn note_seal((damage, keys): (&mut SealDamage, &mut QuarantinedKeys), made: &MadeRow) {
    let Err((key, RowError::Sealed(error))) = made else { return };
    damage.note(key, error);
    if let (Some((resource, _)), Some(label)) = (key.split_once('/'), error.label()) {
        keys.add(resource, label);
    }
}

/// Whether a row is not sealed, and needs nothing but that such rows may be read.
fn is_sound_plain(with: RowDecoder<'_>, key: &str, row: &[u8]) -> bool {
    !packed_row::is_sealed(row)
        && matches!(ObjectMaker::new(with).make(key, row), Ok(_) | Err(RowError::Sealed(UnsealError::Plain)))
}

/// The keys of the quarantine: of the rows of one object, that of the latest first.
fn latest_first(quarantine: &ReadOnlyTable<&str, &[u8]>) -> Result<Vec<String>, redb::StorageError> {
    let mut keys: Vec<(String, Option<[u8; 8]>)> = Vec::new();
    for entry in quarantine.iter()? {
        let (key, row) = entry?;
        keys.push((key.value().to_owned(), row.value().first_chunk().copied()));
    }
    keys.sort_by(|(a, first), (b, second)| (key_before(a), Reverse(first)).cmp(&(key_before(b), Reverse(second))));
    Ok(keys.into_iter().map(|(key, _)| key).collect())
}

impl Moves {
    /// Moves the rows, as a part of `transaction`.
    pub fn make(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut objects = transaction.open_table(OBJECTS)?;
        let mut quarantine = transaction.open_table(QUARANTINE)?;
        for key in &self.unreadable {
            if let Some(value) = objects.remove(key.as_str())? {
                keep(&mut quarantine, key, value.value())?;
            }
        }
        for (aside, key) in &self.readable {
            if let Some(value) = quarantine.remove(aside.as_str())? {
                objects.insert(key.as_str(), value.value())?;
                info!(key, "an object that was kept aside can be read again");
            }
        }
        transaction.open_table(META)?.insert("revision", self.revision)?;
        Ok(())
    }
}

/// Puts a row into the quarantine, beside what may be there under its key.
fn keep(quarantine: &mut redb::Table<'_, &str, &[u8]>, key: &str, value: &[u8]) -> Result<(), redb::Error> {
    let (mut free, mut number) = (key.to_owned(), 2_u64);
    while quarantine.get(free.as_str())?.is_some() {
        free = format!("{key}{FURTHER}{number}");
        number = number.saturating_add(1);
    }
    quarantine.insert(free.as_str(), value)?;
    Ok(())
}

impl RowReader<'_> {
    /// Takes what was made of a row; answers with its key if that cannot be read.
    fn take_or_report(&mut self, made: MadeRow, unpacked: &mut Vec<UnpackedRow>) -> Option<String> {
        match made {
            Ok(made) => {
                unpacked.extend(self.take(made));
                None
            }
            Err((key, error)) => {
                // The opening fails, with all of them in its error.
                let is_told = matches!(error, RowError::Base { .. } | RowError::Sealed(_));
                if self.damaged_bases == DamagedBases::Quarantine || !is_told {
                    warn!(key, %error, "a stored object cannot be read; it is kept aside, and not served");
                }
                Some(key)
            }
        }
    }

    /// Answers with the row if the next opening could not take it as it is.
    fn take(&mut self, made: Made) -> Option<UnpackedRow> {
        let unpacked = made.lacks_row.then(|| UnpackedRow::of(&made));
        (self.keep)(made.resource, made.name, made.object);
        unpacked
    }
}
