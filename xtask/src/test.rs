//! `cargo xtask test`: sets the machine up, runs every test of the workspace, and says in one line what came of it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, bail};

use crate::{
    command,
    setup::{Purpose, setup},
    workspace,
};

/// Install what is missing and run all tests
#[derive(Debug, clap::Args)]
pub struct Test {
    /// Only tests whose names contain this
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// Sums over all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: Vec<String>,
    failures: Vec<String>,
}

impl Test {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        let is_ci = workspace::is_ci();
        // Debian's own is too old, so that nothing here can install it.
        let kubectl = "kubectl, which the cluster tests need, is not on the path; \
                       https://kubernetes.io/docs/tasks/tools/ says how to install it";
        match command::find("kubectl") {
            None if is_ci => bail!("{kubectl}"),
            None => eprintln!("{kubectl}: they will be skipped"),
            Some(_) => {}
        }
        setup(Purpose::Test)?;
        let mounted = mount_bpffs()?;
        let outcome = self.test(is_ci);
        if mounted {
            command::run(Command::new("umount").arg(BPFFS))?;
        }
        outcome
    }

    fn test(&self, is_ci: bool) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut cargo = workspace::cargo();
        cargo.args(["test", "--workspace", "--locked", "--no-fail-fast"]).args(&self.filter);
        // `skipped, because …` is printed by tests that pass.
        cargo.args(["--", "--show-output"]);
        let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
        let output = child.stdout.take().context("cargo test has no output")?;
        let mut summary = Summary::default();
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            summary.read(&line);
        }
        let status = child.wait()?;
        println!("\n{}", summary.text(started.elapsed().as_secs()));
        if !status.success() {
            bail!("tests failed");
        }
        summary.allowed(is_ci)
    }
}

impl Summary {
    /// Takes in one line of a test program's output.
    fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            for part in result.split([';', '.']) {
                let mut words = part.split_whitespace();
                let (Some(number), Some(what)) = (words.next().and_then(|n| n.parse::<u64>().ok()), words.next())
                else {
                    continue;
                };
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        } else if line.starts_with("skipped, because ") {
            self.skipped.push(line.to_owned());
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
    }

    /// On a machine that checks changes, every test runs and there is at least one.
    fn allowed(&self, is_ci: bool) -> anyhow::Result<()> {
        if is_ci && !self.skipped.is_empty() {
            bail!("CI=true allows no skipped test, but {} were skipped", self.skipped.len());
        }
        if is_ci && self.passed == 0 {
            bail!("CI=true, but no test ran");
        }
        Ok(())
    }

    fn text(&self, seconds: u64) -> String {
        let mut text = format!(
            "{} passed, {} failed, {} ignored, {} skipped, in {} min {} s",
            self.passed,
            self.failed,
            self.ignored,
            self.skipped.len(),
            seconds / 60,
            seconds % 60
        );
        for line in &self.skipped {
            text.push_str(&format!("\n  {line}"));
        }
        for name in &self.failures {
            text.push_str(&format!("\n  FAILED {name}"));
        }
        text
    }
}

const BPFFS: &str = "/sys/fs/bpf";

/// Mounts the BPF file system where no one has. Returns whether it did; a machine that may not runs the tests without
/// it.
fn mount_bpffs() -> anyhow::Result<bool> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    let mounted =
        mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS) && line.split(' ').nth(2) == Some("bpf"));
    if mounted || !Path::new(BPFFS).is_dir() || !nix::unistd::geteuid().is_root() {
        return Ok(false);
    }
    match command::run(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS])) {
        Ok(()) => Ok(true),
        Err(error) => {
            eprintln!("no BPF file system: {error:#}; tests that need it will be skipped");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_test_programs_are_summed() {
        let mut summary = Summary::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "test a::b ... FAILED",
            "skipped, because this is not root",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
        ] {
            summary.read(line);
        }
        assert_eq!((summary.passed, summary.failed, summary.ignored), (4, 1, 1));
        assert_eq!(summary.text(61).lines().next(), Some("4 passed, 1 failed, 1 ignored, 1 skipped, in 1 min 1 s"));
        assert_eq!(summary.failures, ["a::b"]);
    }

    #[test]
    fn a_skipped_test_fails_ci_and_nobody_else() {
        let mut summary = Summary::default();
        summary.read("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        assert!(summary.allowed(true).is_ok());
        summary.read("skipped, because this is not root");
        assert!(summary.allowed(false).is_ok());
        assert!(summary.allowed(true).is_err_and(|error| error.to_string().contains("1 were skipped")));
        assert!(Summary::default().allowed(true).is_err());
    }
}
