//! `subPath`: a path inside a volume, wherever its links lead, but never out of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The path itself, made as a directory where there is nothing.
pub fn resolve(volume: &Path, sub_path: &str) -> io::Result<PathBuf> {
    let outside =
        || io::Error::new(io::ErrorKind::PermissionDenied, format!("subPath {sub_path:?} leads out of its volume"));
    let relative = Path::new(sub_path);
    if relative.is_absolute() || relative.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(outside());
    }
    let volume = fs::canonicalize(volume)?;
    let mut path = volume.clone();
    for part in relative.components() {
        path.push(part);
        match fs::canonicalize(&path) {
            Ok(real) if real.starts_with(&volume) => path = real,
            Ok(_) => return Err(outside()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
                fs::create_dir(&path)?
            }
            Err(error) => return Err(error),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_inside_are_followed_and_links_outside_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("v");
        fs::create_dir_all(volume.join("real")).unwrap();
        std::os::unix::fs::symlink("real", volume.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("etc")).unwrap();
        let real = fs::canonicalize(volume.join("real")).unwrap();
        assert_eq!(resolve(&volume, "link").unwrap(), real);
        assert_eq!(resolve(&volume, "link/new").unwrap(), real.join("new"));
        assert!(real.join("new").is_dir());
        for path in ["etc/passwd", "../x", "/etc"] {
            assert!(resolve(&volume, path).is_err(), "{path}");
        }
    }
}
