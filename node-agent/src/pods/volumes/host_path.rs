//! `hostPath`: checks, and where asked makes, a path of the node.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
    path::Path,
};

use crate::pods::outcome::Failure;

/// Checks that `path` is of `kind`, as `hostPath.type` spells it; makes it where the kind says so.
pub fn check(path: &Path, kind: &str) -> Result<(), Failure> {
    let failed =
        |what: &str| Failure::new("FailedMount", format!("hostPath type check failed: {} {what}", path.display()));
    let meta = fs::metadata(path);
    let made = match (kind, &meta) {
        ("DirectoryOrCreate", Err(_)) => DirBuilder::new().recursive(true).mode(0o755).create(path),
        ("FileOrCreate", Err(_)) => OpenOptions::new().create_new(true).write(true).mode(0o644).open(path).map(drop),
        // Docker of old made a directory of what is not there; so does the kubelet for a hostPath without a type.
        ("", Err(_)) => DirBuilder::new().recursive(true).mode(0o755).create(path),
        (_, Err(_)) => return Err(failed("does not exist")),
        _ => Ok(()),
    };
    made.map_err(|error| failed(&format!("cannot be made: {error}")))?;
    let Ok(meta) = meta else { return Ok(()) };
    let file_type = meta.file_type();
    let (matches, what) = match kind {
        "Directory" | "DirectoryOrCreate" => (file_type.is_dir(), "is not a directory"),
        "File" | "FileOrCreate" => (file_type.is_file(), "is not a file"),
        "Socket" => (file_type.is_socket(), "is not a socket"),
        "CharDevice" => (file_type.is_char_device(), "is not a character device"),
        "BlockDevice" => (file_type.is_block_device(), "is not a block device"),
        _ => (true, ""),
    };
    if matches { Ok(()) } else { Err(failed(what)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_must_be_what_its_type_says_and_is_made_only_where_the_type_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert!(check(&path("d"), "Directory").is_err());
        check(&path("d"), "DirectoryOrCreate").unwrap();
        check(&path("d"), "Directory").unwrap();
        check(&path("f"), "FileOrCreate").unwrap();
        assert!(check(&path("f"), "Directory").is_err());
        assert!(check(&path("f"), "Socket").is_err());
    }
}
