//! A stop: a file that is much larger than what it holds, or whose free places may have texts that are sealed now, is
//! replaced by a copy.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::warn;

use super::{
    super::{dense_copy, error::FileError, freed_texts::FreedTexts},
    Tables,
};

impl Tables {
    /// Makes the file as small as what it holds, if it is much larger. For a stop: it is closed then.
    pub fn close_smaller(&mut self) -> Result<(), FileError> {
        let Some(database) = self.database.take() else { return Ok(()) };
        if !(self.is_sparse || self.freed_texts != FreedTexts::None) || !self.path.is_file() {
            return Ok(());
        }
        // A panic is as for a checkpoint.
        let replaced = catch_unwind(AssertUnwindSafe(|| {
            if self.freed_texts == FreedTexts::InFileAndCopy {
                // A new copy has nothing of what stood in free places. If this stop is cut short, the next one may go
                // on with it.
                dense_copy::discard(&self.path)?;
                FreedTexts::InFile.commit(&database)?;
            }
            dense_copy::replace(database, &self.path)
        }));
        let panicked = |_| Err(redb::Error::Corrupted("the database panicked".into()).into());
        replaced.unwrap_or_else(panicked).map_err(|source| {
            let copy = dense_copy::path_of(&self.path);
            if let Err(error) = dense_copy::remove(&copy) {
                warn!(%error, path = %copy.display(), "cannot remove a part of a copy");
            }
            FileError::Copy { path: self.path.clone(), source: Box::new(source) }
        })
    }
}
