//! `cargo xtask tidy`: what reviewers should not have to look for.

mod dependencies;
mod layout;

use crate::{command, workspace};

/// Check layout, dependency directions, formatting and lints
#[derive(Debug, clap::Args)]
pub struct Tidy {
    /// Only layout and dependency directions, which need no compiler
    #[arg(long)]
    fast: bool,
}

impl Tidy {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        let mut problems = layout::problems()?;
        problems.extend(dependencies::problems()?);
        for problem in &problems {
            println!("{problem}");
        }
        for (lines, path) in layout::long_files()? {
            println!("long: {path} has {lines} lines; is there a second concept in it?");
        }
        if !self.fast {
            command::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
            command::run(workspace::cargo().args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ]))?;
        }
        anyhow::ensure!(problems.is_empty(), "{} problem(s)", problems.len());
        println!("tidy");
        Ok(())
    }
}
