//! A program that a test started: its output in a file, its end by its own pid.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Result, wait};

pub struct Process {
    pub name: String,
    pub log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` with its output appended to `DIR/NAME.log`. It is killed when this test process dies.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // SAFETY: prctl is a plain system call.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Self { name: name.to_owned(), log, child })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn signal(&self, signal: Signal) -> Result {
        Ok(kill(self.pid(), signal)?)
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        if self.is_running() {
            self.signal(Signal::SIGTERM)?;
        }
        let name = self.name.clone();
        wait::until(&format!("the end of {name}"), patience, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it still runs".into()),
            Err(error) => Err(error.into()),
        })
    }

    /// The last lines of its output, for a failure's message.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running()
            && let Err(error) = self.terminate(Duration::from_secs(20))
        {
            eprintln!("{}: {error}; killing it", self.name);
            if let Err(error) = self.kill() {
                eprintln!("{}: {error}", self.name);
            }
        }
    }
}
