//! Reads the files that `-f` names: files, directories and standard input.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{Manifest, Problem, parse};

/// Flags that name manifests.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FileArgs {
    /// File or directory with manifests (YAML or JSON), or `-` for standard input; may be given more than once
    #[arg(short, long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub filename: Vec<PathBuf>,
    /// Read directories with all below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// All objects of all files, in the order of the flags and then of the names. Fails only where a file cannot be read.
pub fn read(args: &FileArgs) -> anyhow::Result<Vec<Result<Manifest, Problem>>> {
    let mut results = Vec::new();
    for path in &args.filename {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            results.extend(parse("standard input", &text));
            continue;
        }
        let mut files = Vec::new();
        if path.is_dir() {
            walk(path, args.recursive, &mut files)?;
            anyhow::ensure!(
                !files.is_empty(),
                "the directory {} holds no .yaml, .yml or .json file{}",
                path.display(),
                if args.recursive { "" } else { " (-R also looks below it)" }
            );
        } else {
            files.push(path.clone());
        }
        for file in files {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            results.extend(parse(&file.display().to_string(), &text));
        }
    }
    Ok(results)
}

fn walk(directory: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let context = || format!("cannot read the directory {}", directory.display());
    let entries = std::fs::read_dir(directory).with_context(context)?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.with_context(context)?.path());
    }
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if recursive {
                walk(&path, recursive, files)?;
            }
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    Ok(())
}
