//! What can be wrong with the store's file, and what its writers are told of it.

use std::path::{Path, PathBuf};

use super::{
    damaged_bases::BaseDamage,
    dense_copy::CopyError,
    seal_damage::SealDamage,
    tables::NEWEST_LAYOUT,
    write_ahead::{LogError, is_no_space},
};
use crate::CommitError;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The database failed, or its disk did.
    #[error("cannot {operation} the store {}", path.display())]
    Redb {
        /// What was tried.
        operation: &'static str,
        /// The store's file.
        path: PathBuf,
        /// What redb said.
        #[source]
        source: Box<redb::Error>,
    },
    /// The file was not replaced by a copy without free places: see its cause.
    #[error("cannot copy the store {}", path.display())]
    Copy {
        /// The store's file.
        path: PathBuf,
        /// Why there is no copy.
        #[source]
        source: Box<CopyError>,
    },
    /// A newer program wrote the file: use that one.
    #[error(
        "the store {} has layout {found}; this program knows layouts up to {NEWEST_LAYOUT}: start the newer one that \
         wrote it, or restore a backup",
        path.display()
    )]
    Layout {
        /// The store's file.
        path: PathBuf,
        /// The layout's number in the file.
        found: u64,
    },
    /// Texts that many objects share are damaged: restore a backup, or open the store without these objects.
    #[error(
        "the store {} has lost {damage}: restore a backup, or start once with --quarantine-damaged-objects to go on \
         without these objects",
        path.display()
    )]
    DamagedBases {
        /// The store's file.
        path: PathBuf,
        /// What is lost.
        damage: BaseDamage,
    },
    /// Keys are missing without which objects cannot be decrypted: configure them again.
    #[error(
        "the store {} has objects that cannot be decrypted: {damage}: give their keys back in \
         --encryption-provider-config, or start once with --quarantine-damaged-objects to go on without these objects",
        path.display()
    )]
    Sealed {
        /// The store's file.
        path: PathBuf,
        /// What cannot be decrypted, and why.
        damage: SealDamage,
    },
    /// A key service did not decrypt objects. They are not lost: start it, and then the store.
    #[error(
        "the store {} has objects that a key service did not decrypt: {damage}: see that it answers, and start again; \
         nothing of them is kept aside for that. Where the service has lost its key for good, take its provider out of \
         --encryption-provider-config",
        path.display()
    )]
    KeyService {
        /// The store's file.
        path: PathBuf,
        /// What was not decrypted, and why.
        damage: SealDamage,
    },
    /// The log beside the database failed, or its disk did.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log holds more than it should, since the tables cannot be written.
    #[error("the log {} cannot be brought into the tables: {message}", path.display())]
    Behind {
        /// The log's file.
        path: PathBuf,
        /// What was wrong with the tables.
        message: String,
        /// Whether that was a full disk.
        no_space: bool,
    },
}

impl FileError {
    /// An error of the database.
    pub fn redb(operation: &'static str, path: &Path, source: redb::Error) -> Self {
        Self::Redb { operation, path: path.to_owned(), source: Box::new(source) }
    }

    /// Whether the disk is full.
    pub fn no_space(&self) -> bool {
        match self {
            Self::Redb { source, .. } => matches!(&**source, redb::Error::Io(error) if is_no_space(error)),
            Self::Copy { source, .. } => match &**source {
                CopyError::NoRoom { .. } => true,
                CopyError::Redb(redb::Error::Io(error)) => is_no_space(error),
                CopyError::Redb(_) | CopyError::UnknownTable => false,
            },
            Self::Behind { no_space, .. } => *no_space,
            Self::Layout { .. } | Self::DamagedBases { .. } | Self::Sealed { .. } | Self::KeyService { .. } => false,
            Self::Log(error) => error.no_space(),
        }
    }

    /// What the writers of a batch that failed are told.
    pub fn for_writers(&self) -> CommitError {
        if self.no_space() {
            let path = match self {
                Self::Redb { path, .. }
                | Self::Copy { path, .. }
                | Self::Layout { path, .. }
                | Self::DamagedBases { path, .. }
                | Self::Sealed { path, .. }
                | Self::KeyService { path, .. }
                | Self::Behind { path, .. } => path,
                Self::Log(error) => error.path(),
            };
            return CommitError::Full { path: path.display().to_string() };
        }
        CommitError::Unavailable { message: with_causes(self) }
    }
}

/// An error with all its causes.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
