//! Who may write the tables at a moment: the store's file, or the thread that makes checkpoints.

use std::path::Path;

use super::{error::FileError, tables::Tables};

/// Who has the tables.
pub enum TablesOwner {
    /// The store's file.
    File(Box<Tables>),
    /// The thread that makes checkpoints.
    CheckpointThread,
    /// Nobody: that thread ended without giving them back.
    Lost,
}

impl TablesOwner {
    /// The tables, if they are not with the thread; `log` is what an error names.
    ///
    /// # Errors
    /// [`FileError::Behind`] where the thread has them, or has lost them.
    pub fn get(&mut self, log: &Path) -> Result<&mut Tables, FileError> {
        match self {
            Self::File(tables) => Ok(tables),
            Self::CheckpointThread | Self::Lost => {
                let message = "the thread that writes them has ended; restart the control service".into();
                Err(FileError::Behind { path: log.to_owned(), message, no_space: false })
            }
        }
    }
}
