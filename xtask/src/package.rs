//! `cargo xtask package`: a tarball with the stripped binary, its unit, the licence and the README; debug information
//! beside it.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use flate2::{Compression, GzBuilder};

use crate::{
    build, command,
    setup::{Purpose, setup},
    workspace,
};

/// What a stripped binary should be at the most; a larger one is shipped with a remark.
const MAX_SIZE: u64 = 40 << 20;

/// Build a tarball with the stripped binary and the systemd unit, and one with the debug information
#[derive(Debug, clap::Args)]
pub struct Package {}

impl Package {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        setup(Purpose::Run)?;
        build::dist()?;
        let name = format!("fairlead-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        let directory = workspace::target_dir().join("package");
        std::fs::create_dir_all(&directory)?;
        let stripped = strip(&workspace::dist_binary(), &directory)?;
        let size = std::fs::metadata(&stripped.binary)?.len();
        if size > MAX_SIZE {
            eprintln!("note: the stripped binary has {size} bytes, more than the {MAX_SIZE} that it should have");
        }
        let unit = command::output(Command::new(&stripped.binary).args(["node", "install", "--print"]))?;
        let mut files =
            vec![("fairlead", 0o755, read(&stripped.binary)?), ("fairlead-node.service", 0o644, unit.into_bytes())];
        for file in ["README.md", "LICENSE"] {
            files.push((file, 0o644, read(&workspace::root().join(file))?));
        }
        write_tarball(&directory.join(format!("{name}.tar.gz")), &name, &files)?;
        let debug = [(DEBUG_FILE, 0o644, read(&stripped.debug)?)];
        write_tarball(&directory.join(format!("{name}-debug.tar.gz")), &name, &debug)
    }
}

/// Debuggers and backtraces look for it beside the binary, by the name that the binary holds.
const DEBUG_FILE: &str = "fairlead.debug";

/// A binary in two files.
struct Stripped {
    binary: PathBuf,
    debug: PathBuf,
}

/// Splits `binary` into one without debug information and symbols, and a file with both, to which the first one refers.
fn strip(binary: &Path, directory: &Path) -> anyhow::Result<Stripped> {
    let stripped = Stripped { binary: directory.join("fairlead"), debug: directory.join(DEBUG_FILE) };
    objcopy(&["--only-keep-debug", "--compress-debug-sections"], &[binary, &stripped.debug])?;
    objcopy(&["--strip-all"], &[binary, &stripped.binary])?;
    // The link holds the name of the file without its directory, and its checksum.
    let link = format!("--add-gnu-debuglink={}", stripped.debug.display());
    objcopy(&[&link], &[&stripped.binary])?;
    Ok(stripped)
}

fn objcopy(flags: &[&str], files: &[&Path]) -> anyhow::Result<()> {
    command::output(Command::new("objcopy").args(flags).args(files)).map(drop)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes the tarball and prints its path. Equal files give equal bytes: owners, times and order are fixed.
fn write_tarball(path: &Path, directory: &str, files: &[(&str, u32, Vec<u8>)]) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut tar = tar::Builder::new(GzBuilder::new().mtime(0).write(file, Compression::best()));
    for (name, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len())?);
        header.set_mode(*mode);
        header.set_mtime(0);
        tar.append_data(&mut header, format!("{directory}/{name}"), content.as_slice())?;
    }
    tar.into_inner()?.finish()?.flush()?;
    println!("{}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn a_tarball_holds_its_files_and_equal_files_give_equal_bytes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = [("a", 0o755, b"program".to_vec()), ("b", 0o644, b"text".to_vec())];
        let paths = ["one.tar.gz", "two.tar.gz"].map(|name| directory.path().join(name));
        for path in &paths {
            write_tarball(path, "x-1", &files).expect("writable");
        }
        let [one, two] = paths.each_ref().map(|path| std::fs::read(path).expect("readable"));
        assert_eq!(one, two);
        let mut tar = tar::Archive::new(GzDecoder::new(&one[..]));
        let mut found = BTreeMap::new();
        for entry in tar.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            let path = entry.path().expect("a path").display().to_string();
            found.insert(path, (entry.header().mode().expect("a mode"), text));
        }
        let expected = [("x-1/a", (0o755, "program")), ("x-1/b", (0o644, "text"))];
        let expected = expected.map(|(path, (mode, text))| (path.to_owned(), (mode, text.to_owned())));
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn a_stripped_binary_runs_and_its_debug_information_is_apart() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let own = std::env::current_exe().expect("a file");
        let stripped = strip(&own, directory.path()).expect("objcopy");
        let size = |path: &Path| std::fs::metadata(path).expect("there").len();
        assert!(size(&stripped.binary) < size(&own) && size(&stripped.debug) > 0);
        command::output(Command::new(&stripped.binary).arg("--list")).expect("it runs");
        let sections = command::output(Command::new("objdump").arg("-h").arg(&stripped.binary)).expect("objdump");
        assert!(sections.contains(".gnu_debuglink") && !sections.contains(".debug_info"), "{sections}");
    }
}
