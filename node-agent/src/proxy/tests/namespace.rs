//! A network namespace without a name: it ends with the last file descriptor, whatever happens to the test.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
    sync::Arc,
};

use nix::sched::{CloneFlags, setns, unshare};

/// Clones are the same namespace.
#[derive(Clone)]
pub struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// With the loopback switched on, and nothing else.
    pub fn new() -> Self {
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = Self { file: Arc::new(file.join().unwrap()) };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `work` on a thread inside.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().unwrap()
    }

    /// As [`Namespace::run`], without waiting for the end.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let file = self.file.clone();
        std::thread::spawn(move || {
            setns(&*file, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    /// `ip ARGUMENTS` inside.
    pub fn ip(&self, arguments: &str) {
        let status = self.command("ip").args(arguments.split_whitespace()).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = self.file.clone();
        // SAFETY: only the system call `setns` between fork and exec.
        unsafe { command.pre_exec(move || setns(&*file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)) };
        command
    }

    /// A path that other processes can open while this one lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}
