//! Opens the database of the tables, or makes it, and gives it the layout of this program.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
};

use redb::{Builder, Database, DatabaseError, ReadableTable, TableDefinition};

use super::{
    disk::sync_parent,
    freed_texts::FreedTexts,
    stored_base::BASES,
    tables::{CACHE_BYTES, LAYOUT, META, OBJECTS},
};

/// What layout 2 kept of objects beside their texts.
const HEADERS_OF_LAYOUT_2: TableDefinition<&str, &[u8]> = TableDefinition::new("headers");

/// Opens or makes the database where its bytes are kept.
pub type OpenDatabase = Box<dyn Fn(&Builder) -> Result<Database, DatabaseError> + Send>;

/// Makes an empty database. It gets its name when it is complete: a crash leaves no file that cannot be opened.
pub fn create(path: &Path) -> Result<(), redb::Error> {
    let unfinished = unfinished(path);
    drop(Builder::new().create(&unfinished)?);
    fs::rename(&unfinished, path)?;
    sync_parent(path)?;
    Ok(())
}

/// The name of a file that is to take the place of `path` once it is complete.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// What an opened database says of itself.
pub struct Opened {
    pub database: Database,
    pub revision: u64,
    pub layout: u64,
    pub store: u64,
    pub checkpoints: u64,
    /// The greatest number of a base.
    pub last_base: u64,
    /// It had an older layout, and rows.
    pub was_older: bool,
    /// What stands in free places.
    pub freed_texts: FreedTexts,
}

/// Opens the database, and gives it the layout of this program if it has an older one.
pub fn open(open_database: &OpenDatabase) -> Result<Opened, redb::Error> {
    let database = open_database(Builder::new().set_cache_size(CACHE_BYTES))?;
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let last_base = transaction.open_table(BASES)?.last()?.map_or(0, |(number, _)| number.value());
    let (revision, layout, store, checkpoints, changed, freed_texts) = {
        transaction.open_table(OBJECTS)?;
        let mut meta = transaction.open_table(META)?;
        let layout = meta.get("layout")?.map(|value| value.value());
        let known = meta.get("store")?.map(|value| value.value());
        let store = known.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()));
        if layout.is_none() {
            meta.insert("revision", 0)?;
        }
        let is_older = layout.is_none_or(|layout| layout < LAYOUT);
        if is_older {
            meta.insert("layout", LAYOUT)?;
            meta.insert("store", store)?;
        }
        let revision = meta.get("revision")?.map_or(0, |value| value.value());
        let checkpoints = meta.get("checkpoints")?.map_or(0, |value| value.value());
        (
            revision,
            layout.map_or(LAYOUT, |layout| layout.max(LAYOUT)),
            store,
            checkpoints,
            is_older,
            FreedTexts::read(&meta)?,
        )
    };
    if changed {
        transaction.delete_table(HEADERS_OF_LAYOUT_2)?;
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    let was_older = changed && revision > 0;
    Ok(Opened { database, revision, layout, store, checkpoints, last_base, was_older, freed_texts })
}
