//! A settings file that is written by the program and may be edited by people: an edit is never overwritten, as by
//! dpkg.
//!
//! The first line holds a hash of what was written below it. While it matches, nobody has edited the file.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use anyhow::Context;
use sha2::{Digest, Sha256};

const HEADER: &str = "# Written by `fairlead node install`, which keeps this file as it is once it is edited. sha256:";

/// What became of a managed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It holds the new settings.
    Replaced,
    /// It held them already.
    Unchanged,
    /// It was edited and is as it was; the new settings are in this file beside it.
    Kept { proposal: PathBuf },
    /// It was edited and holds the new settings; the edited ones are in this file beside it.
    Forced { backup: PathBuf },
}

/// Makes the file `path` hold `body`, unless somebody has edited it and `force` is not given.
pub fn write(path: &Path, body: &str, force: bool) -> anyhow::Result<Written> {
    let fresh = format!("{HEADER}{}\n{body}", hash(body));
    let existing = match fs::read_to_string(path).and_then(|text| Ok((text, Access::of(&fs::metadata(path)?)))) {
        Ok(existing) => Some(existing),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    // Whoever made the file private did so for what they wrote into it, and for its copies.
    let access = existing.as_ref().map_or(Access::of_mode(0o644), |(_, access)| *access);
    let proposal = beside(path, "new");
    let written = match existing {
        Some((text, _)) if text == fresh => Written::Unchanged,
        Some((text, _)) if is_edited(&text) && !force => {
            replace_as(&proposal, &fresh, access)?;
            return Ok(Written::Kept { proposal });
        }
        Some((text, _)) if is_edited(&text) => {
            let backup = beside(path, "old");
            replace_as(&backup, &text, access)?;
            replace_as(path, &fresh, access)?;
            Written::Forced { backup }
        }
        Some(_) | None => {
            replace_as(path, &fresh, access)?;
            Written::Replaced
        }
    };
    match fs::remove_file(&proposal) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", proposal.display()))
        }
        _ => Ok(written),
    }
}

/// Who may do what with a file.
#[derive(Clone, Copy, Debug)]
struct Access {
    mode: u32,
    /// User and group; those of this process otherwise.
    owner: Option<(u32, u32)>,
}

impl Access {
    fn of(meta: &fs::Metadata) -> Self {
        Self { mode: meta.permissions().mode() & 0o777, owner: Some((meta.uid(), meta.gid())) }
    }

    fn of_mode(mode: u32) -> Self {
        Self { mode, owner: None }
    }
}

/// Replaces the file atomically: a reader sees the old or the new text, also after a crash.
pub fn replace(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    replace_as(path, text, Access::of_mode(mode))
}

fn replace_as(path: &Path, text: &str, access: Access) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let partial = beside(path, "partial");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        // Nobody else's before the file has its owner.
        .mode(access.mode & 0o700)
        .open(&partial)
        .with_context(context)?;
    if let Some((user, group)) = access.owner {
        fchown(&file, Some(user), Some(group)).with_context(context)?;
    }
    file.set_permissions(fs::Permissions::from_mode(access.mode)).with_context(context)?;
    file.write_all(text.as_bytes()).with_context(context)?;
    file.sync_all().with_context(context)?;
    fs::rename(&partial, path).with_context(context)
}

/// A file that does not begin with its own hash: somebody has edited it, or an older version wrote it.
fn is_edited(text: &str) -> bool {
    let header = text.strip_prefix(HEADER).and_then(|rest| rest.split_once('\n'));
    header.is_none_or(|(written, body)| written.trim() != hash(body))
}

fn hash(body: &str) -> String {
    hex::encode(Sha256::digest(body.as_bytes()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(path: &Path) -> String {
        let text = fs::read_to_string(path).expect("readable");
        text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_edited_file_is_kept_and_the_new_settings_are_beside_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("node.yaml");
        assert_eq!(write(&path, "join: a\n", false).expect("new"), Written::Replaced);
        assert_eq!(write(&path, "join: a\n", false).expect("same"), Written::Unchanged);
        assert_eq!(write(&path, "join: b\n", false).expect("not edited"), Written::Replaced);
        let edited = fs::read_to_string(&path).expect("readable") + "max-pods: 7\n";
        fs::write(&path, &edited).expect("writable");

        let proposal = directory.path().join("node.yaml.new");
        assert_eq!(write(&path, "join: c\n", false).expect("kept"), Written::Kept { proposal: proposal.clone() });
        assert_eq!(fs::read_to_string(&path).expect("readable"), edited);
        assert_eq!(body(&proposal), "join: c");

        let backup = directory.path().join("node.yaml.old");
        assert_eq!(write(&path, "join: c\n", true).expect("forced"), Written::Forced { backup: backup.clone() });
        assert_eq!(body(&path), "join: c");
        assert_eq!(fs::read_to_string(&backup).expect("readable"), edited);
        assert!(!proposal.exists(), "the proposal is in force, and needs no file any more");
    }

    #[test]
    fn a_file_of_unknown_origin_counts_as_edited() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("node.yaml");
        for text in ["", "join: a\n", "# a comment\njoin: a\n"] {
            fs::write(&path, text).expect("writable");
            assert!(matches!(write(&path, "join: b\n", false).expect("kept"), Written::Kept { .. }), "{text}");
            assert_eq!(fs::read_to_string(&path).expect("readable"), text);
        }
    }

    #[test]
    fn what_is_replaced_has_the_mode_asked_for() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("token");
        fs::write(&path, "old").expect("writable");
        replace(&path, "secret\n", 0o600).expect("writable");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 1);
    }

    #[test]
    fn copies_of_a_private_file_are_private() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("node.yaml");
        fs::write(&path, "join: a\nsecret: b\n").expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        let own = fs::metadata(&path).expect("there");
        // Root alone gives files away; others see that theirs stay their own.
        let owner = if own.uid() == 0 { (4242, 4343) } else { (own.uid(), own.gid()) };
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)).expect("may be given away");
        let access = |path: &Path| {
            let meta = fs::metadata(path).expect("there");
            (meta.permissions().mode() & 0o777, (meta.uid(), meta.gid()))
        };
        let Written::Kept { proposal } = write(&path, "join: b\n", false).expect("kept") else { panic!("replaced") };
        assert_eq!(access(&proposal), (0o600, owner));
        let Written::Forced { backup } = write(&path, "join: b\n", true).expect("forced") else { panic!("kept") };
        assert_eq!((access(&backup), access(&path)), ((0o600, owner), (0o600, owner)));
    }

    #[test]
    fn the_settings_are_read_with_their_first_line() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("node.yaml");
        write(&path, "join: https://a:1\ntoken-file: /t\n", false).expect("new");
        let line = format!("fairlead node run --config {}", path.display());
        let parsed = crate::cli::parse(line.split(' ').map(Into::into)).map(drop);
        parsed.expect("a service started by the unit finds all it needs");
    }
}
