//! Runs one of the host's firewall programs with input on its standard input, and reports why it failed.

use std::{
    io,
    process::{Output, Stdio},
};

use tokio::{io::AsyncWriteExt, process::Command};

/// Why a program failed.
#[derive(Debug)]
pub enum ProgramError {
    /// It is missing, or could not be started.
    Run(io::Error),
    /// What it said on its standard error.
    Refused(String),
}

/// Gives `input` to `program` and waits for its end. It ends with the future, too.
pub async fn run(program: &str, arguments: &[&str], input: &str) -> Result<Output, ProgramError> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(ProgramError::Run)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(ProgramError::Run)?;
    }
    let output = child.wait_with_output().await.map_err(ProgramError::Run)?;
    if output.status.success() {
        return Ok(output);
    }
    Err(ProgramError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
