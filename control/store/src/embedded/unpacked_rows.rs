//! Objects whose rows the next opening could not take as they are: rows of JSON, and such with a header of another
//! program. Checkpoints bring them into the file in their shortest form, some at a time.
//!
//! Their objects are not held for that. Where one is gone, since a definition made it anew, the row of JSON itself is
//! packed; any other object that is gone was written again, and has a new row.

use std::sync::{Arc, Weak};

use redb::ReadableTable;

use super::{
    packed_row::{self, Made},
    stored_base::RowWriter,
};
use crate::{
    Decode, Draft, EventType, HeaderParts, Object, RESOURCE_VERSION, object::METADATA_END, packed::Layout,
    references::References, seal::Sealer,
};

/// How many rows one transaction packs, and how many bytes of text and header they have, but for a single longer one.
const ROWS_AT_ONCE: usize = 4096;
const BYTES_AT_ONCE: usize = 8 << 20;

/// A row that is to be packed.
#[derive(Debug)]
pub struct UnpackedRow {
    key: Box<str>,
    object: Weak<Object>,
    layout: Layout,
    /// Text and header.
    bytes: usize,
}

/// The rows that are to be packed.
#[derive(Debug, Default)]
pub struct UnpackedRows {
    rows: Vec<UnpackedRow>,
    /// What the texts of rows are encoded against whose objects are gone.
    references: References,
}

/// Those that one transaction packs.
pub struct PackingBatch<'a> {
    rows: &'a [UnpackedRow],
    references: &'a mut References,
}

impl UnpackedRow {
    /// The row of an object that was made of it.
    pub fn of(made: &Made) -> Self {
        let key = format!("{}/{}", made.resource, made.name).into();
        let object = &made.object;
        Self { key, object: Arc::downgrade(object), layout: object.layout(), bytes: object.size() }
    }
}

impl UnpackedRows {
    /// These, and no others.
    pub fn new(rows: Vec<UnpackedRow>) -> Self {
        Self { rows, references: References::default() }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many are left once the next batch is packed.
    pub fn left_after_batch(&self) -> usize {
        self.rows.len().saturating_sub(batch_len(self.rows.iter().rev().map(|row| row.bytes)))
    }

    /// Those after the first `left`.
    pub fn batch(&mut self, left: usize) -> PackingBatch<'_> {
        PackingBatch { rows: self.rows.get(left..).unwrap_or_default(), references: &mut self.references }
    }

    /// All but the first `left` are packed.
    pub fn packed(&mut self, left: usize) {
        self.rows.truncate(left);
        if self.rows.is_empty() {
            *self = Self::default();
        }
    }
}

/// How many of the rows with these sizes go into one batch: at least one.
fn batch_len(sizes: impl Iterator<Item = usize>) -> usize {
    let sums = sizes.scan(0_usize, |sum, size| {
        *sum = sum.saturating_add(size);
        Some(*sum)
    });
    sums.take(ROWS_AT_ONCE).enumerate().take_while(|(at, sum)| *at == 0 || *sum <= BYTES_AT_ONCE).count()
}

impl PackingBatch<'_> {
    /// No rows.
    pub fn none(references: &mut References) -> PackingBatch<'_> {
        PackingBatch { rows: &[], references }
    }

    /// Packs the rows that are as they were when the file was read.
    pub fn write(
        &mut self,
        objects: &mut redb::Table<'_, &'static str, &'static [u8]>,
        writer: &mut RowWriter<'_, '_>,
        (decode, sealer): (Option<&dyn Decode>, &Sealer),
    ) -> Result<(), redb::StorageError> {
        for UnpackedRow { key, object, layout, .. } in self.rows {
            let Some((resource, _)) = key.split_once('/') else { continue };
            // What its resource's encryption found unencrypted stays so until it is written again, and is not written
            // unencrypted once more.
            if sealer.seals(resource) {
                continue;
            }
            let mark = decode.and_then(|decode| decode.mark(resource));
            let packed = match objects.get(&**key)? {
                None => None,
                Some(row) => match object.upgrade() {
                    Some(object) if row.value().starts_with(&object.revision.to_be_bytes()) => {
                        Some(writer.row(&object, mark)?)
                    }
                    // Its header would have to be made, too.
                    Some(_) | None if mark.is_some() => None,
                    Some(_) | None => match of_text(row.value(), *layout, (&resource.into(), self.references)) {
                        Some(object) => Some(writer.row(&object, None)?),
                        None => None,
                    },
                },
            };
            if let Some(row) = packed
                && let Some(previous) = objects.insert(&**key, row.as_slice())?
            {
                writer.removed(previous.value());
            }
        }
        Ok(())
    }
}

/// An object with the text of a row of JSON, and without a header. Nothing where that is no such row, or its text has
/// another layout.
fn of_text(row: &[u8], layout: Layout, (resource, references): (&Arc<str>, &mut References)) -> Option<Object> {
    let (revision, text) = packed_row::json_row(row)?;
    let (head, rest) = text.split_at_checked(layout.head_len as usize)?;
    let tail = rest.strip_prefix(revision.to_string().as_bytes())?;
    let before = head.strip_suffix(RESOURCE_VERSION.as_bytes())?;
    if !tail.starts_with(METADATA_END) || layout.metadata_at.checked_add(layout.managed_len)? as usize > before.len() {
        return None;
    }
    let draft = Draft {
        head: head.to_vec(),
        tail: tail.to_vec(),
        metadata_at: layout.metadata_at,
        managed_len: layout.managed_len,
        header: HeaderParts::default().pack(),
    };
    Some(Object::kept(draft, revision, EventType::Added, (resource, references)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_bounded_by_rows_and_by_bytes_and_is_never_empty() {
        let of = |sizes: &[usize]| batch_len(sizes.iter().copied());
        assert_eq!((of(&[]), of(&[10]), of(&[usize::MAX, 1])), (0, 1, 1));
        assert_eq!(of(&[BYTES_AT_ONCE / 2, BYTES_AT_ONCE / 2, 1]), 2);
        assert_eq!(of(&[1, BYTES_AT_ONCE]), 1);
        assert_eq!(batch_len(std::iter::repeat_n(1, 10_000)), ROWS_AT_ONCE);
    }
}
