//! Runs one of the host's firewall programs with input on its standard input, and reports why it failed.

use std::{
    io,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, process::Command};

/// Why a program failed.
#[derive(Debug)]
pub enum ProgramError {
    /// It is missing, could not be started, or did not end in time.
    Run(io::Error),
    /// What it said on its standard error.
    Refused(String),
}

/// How long one may take. A table of a thousand pods is written in far less than a second.
const LIMIT: Duration = Duration::from_secs(30);

/// Gives `input` to `program` and waits for its end, but no longer than half a minute. It ends with the future, too.
pub async fn run(program: &str, arguments: &[&str], input: &str) -> Result<Output, ProgramError> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(ProgramError::Run)?;
    let ended = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let ended = tokio::time::timeout(LIMIT, ended).await;
    let output = ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(ProgramError::Run)?;
    if output.status.success() {
        return Ok(output);
    }
    Err(ProgramError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
