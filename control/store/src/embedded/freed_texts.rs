//! Whether free places of the file may have texts that are sealed now. The file itself says so: a crash, or a stop that
//! could not make the copy without them, must not forget it.

use redb::{Database, Durability, ReadableTable, WriteTransaction};

use super::tables::META;

/// What stands in free places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FreedTexts {
    /// No text that is sealed now, as far as known.
    #[default]
    None,
    /// Such texts, in what there is of a copy as well.
    InFileAndCopy,
    /// Such texts, but none in a copy: it was begun since.
    InFile,
}

/// The key in [`META`].
const NAME: &str = "freed_texts";

impl FreedTexts {
    /// What the file says.
    pub fn read(meta: &impl ReadableTable<&'static str, u64>) -> Result<Self, redb::Error> {
        Ok(match meta.get(NAME)?.map(|value| value.value()) {
            None => Self::None,
            Some(2) => Self::InFile,
            Some(_) => Self::InFileAndCopy,
        })
    }

    /// Has the file say it, as a part of `transaction`.
    pub fn write(self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut meta = transaction.open_table(META)?;
        match self {
            Self::None => drop(meta.remove(NAME)?),
            Self::InFileAndCopy => drop(meta.insert(NAME, 1)?),
            Self::InFile => drop(meta.insert(NAME, 2)?),
        }
        Ok(())
    }

    /// The same in a transaction of its own, durably.
    pub fn commit(self, database: &Database) -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        self.write(&transaction)?;
        Ok(transaction.commit()?)
    }
}
