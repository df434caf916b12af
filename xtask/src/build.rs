//! `cargo xtask build`: the release build of the binary, with what it needs installed.

use crate::{
    command,
    setup::{Purpose, setup},
    workspace,
};

/// Build the binary for release (installs what the build lacks)
#[derive(Debug, clap::Args)]
pub struct Build {}

impl Build {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        setup(Purpose::Run)?;
        release()?;
        println!("{}", workspace::release_binary().display());
        Ok(())
    }
}

/// Builds `target/release/fairlead`. Cargo shows its own progress.
pub fn release() -> anyhow::Result<()> {
    command::run(workspace::cargo().args(["build", "--release", "--locked", "--bin", "fairlead"]))
}

/// Builds `target/dist/fairlead`, the binary that is shipped.
pub fn dist() -> anyhow::Result<()> {
    command::run(workspace::cargo().args(["build", "--profile", "dist", "--locked", "--bin", "fairlead"]))
}
