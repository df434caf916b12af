//! When each resource was written last: what a watch of it need not begin before.

use std::collections::HashMap;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::tables::META;

/// Resource → the revision of its last write. Valid for writes after `changes_since` in [`META`], while `changes_at`
/// there equals the store's revision: an older program, which does not know this table, advances the revision alone.
pub const LAST_CHANGES: TableDefinition<&str, u64> = TableDefinition::new("changes");

/// The revision of the last write to each resource, as far as the file knows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LastChanges {
    by_resource: HashMap<String, u64>,
    /// Resources that are not named had no write after it.
    others: u64,
}

impl LastChanges {
    /// What [`LAST_CHANGES`] says of a store whose last write is at `revision`; `None` where it is not valid.
    pub fn read(database: &Database, revision: u64) -> Result<Option<Self>, redb::Error> {
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let number = |name: &str| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value()));
        let (Some(others), Some(at)) = (number("changes_since")?, number("changes_at")?) else { return Ok(None) };
        if at != revision {
            return Ok(None);
        }
        let mut by_resource = HashMap::new();
        for entry in transaction.open_table(LAST_CHANGES)?.iter()? {
            let (resource, last) = entry?;
            by_resource.insert(resource.value().to_owned(), last.value());
        }
        Ok(Some(Self { by_resource, others }))
    }

    /// Of a store whose last write is at `revision`, when nothing else is known.
    pub fn unknown(revision: u64) -> Self {
        Self { by_resource: HashMap::new(), others: revision }
    }

    /// No write to `resource` came after this revision.
    pub fn of(&self, resource: &str) -> u64 {
        self.by_resource.get(resource).copied().unwrap_or(self.others)
    }
}
