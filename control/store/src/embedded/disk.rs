//! Where the bytes of a write-ahead log are kept: a file, or what a test has instead.

use std::{
    ffi::CString,
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

/// A file of bytes. What was written is durable after the next [`Disk::sync`].
pub trait Disk: Send {
    /// How many bytes it has.
    fn len(&self) -> io::Result<u64>;
    /// All bytes.
    fn read(&self) -> io::Result<Vec<u8>>;
    /// Writes all of `bytes`, and makes the file longer where they end after it.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file.
    fn shorten(&self, len: u64) -> io::Result<()>;
    /// Makes durable what was written before.
    fn sync(&self) -> io::Result<()>;
}

/// Opens the disk, again after an error. What is read then comes from the disk itself.
pub type OpenDisk = Box<dyn Fn() -> io::Result<Box<dyn Disk>> + Send>;

/// Opens or makes the file `path`.
pub fn open(path: &Path) -> io::Result<Box<dyn Disk>> {
    let made = !path.exists();
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if made {
        sync_parent(path)?;
    }
    forget_cached_pages(&file)?;
    Ok(Box::new(file))
}

impl Disk for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(Disk::len(self)?).map_err(io::Error::other)?];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn shorten(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The file that `path` means, by way of symbolic links. One that leads to nothing is an error: what it should lead to
/// is not there for the moment, as a disk that is not mounted, and must not be begun anew elsewhere.
pub fn resolved(path: &Path) -> io::Result<PathBuf> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) => Err(error),
        Ok(found) if found.is_symlink() => fs::canonicalize(path),
        Ok(_) => Ok(path.to_owned()),
    }
}

/// Makes the name of a new file durable: a sync of the file does not.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()
}

/// How many bytes are free for this process where the file `path` is.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a NUL, and the call writes nothing but one such structure.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so that the structure is written.
    let found = unsafe { found.assume_init() };
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Makes the next reads come from the disk.
///
/// After a failed sync, Linux keeps the pages that it could not write and calls them clean: they would be read as if
/// they were durable, and no later sync would write them. Pages that wait to be written stay.
pub fn forget_cached_pages(file: &fs::File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` lives, and the call touches no memory of this process.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}
