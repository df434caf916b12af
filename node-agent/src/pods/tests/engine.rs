//! A Docker Engine of the test's own, with one small image of busybox called `hello:v1`.

use std::{
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::skipped::skipped;

/// Ends with the value, and its containers with it.
pub struct Engine {
    directory: tempfile::TempDir,
    daemon: Mutex<Child>,
}

impl Engine {
    /// `None`, after saying why, where there can be none.
    pub fn start() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skipped("it needs root");
            return None;
        }
        if !Path::new("/bin/busybox").exists() {
            skipped("there is no /bin/busybox to make an image of");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("fairlead-pods-").tempdir().expect("a temporary directory");
        let Ok(daemon) = spawn(directory.path()) else {
            skipped("there is no dockerd");
            return None;
        };
        let engine = Self { directory, daemon: Mutex::new(daemon) };
        engine.wait();
        engine.import();
        Some(engine)
    }

    /// Where it listens, as `DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("docker.sock").display())
    }

    /// Ends the engine and, as it does without live restore, its containers; then starts it again.
    pub fn restart(&self) {
        let mut daemon = self.daemon.lock();
        terminate(&mut daemon);
        *daemon = spawn(self.directory.path()).expect("it started before");
        drop(daemon);
        self.wait();
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let socket = self.directory.path().join("docker.sock");
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "dockerd does not listen");
            std::thread::yield_now();
        }
    }

    fn import(&self) {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_path_with_name("/bin/busybox", "bin/busybox").expect("busybox is readable");
        for name in [
            "sh", "sleep", "echo", "cat", "ls", "true", "false", "touch", "kill", "env", "nc", "id", "printf", "tail",
            "test", "ip",
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            archive.append_link(&mut header, format!("bin/{name}"), "busybox").expect("memory takes any write");
        }
        let path = self.directory.path().join("hello.tar");
        let archive = archive.into_inner().expect("memory takes any write");
        std::fs::write(&path, archive).expect("the directory is writable");
        self.import_as("hello:v1");
    }

    /// Imports the same files again as an image of its own.
    pub fn import_as(&self, name: &str) {
        let (path, change) = (self.directory.path().join("hello.tar"), format!("LABEL name={name}"));
        self.docker(&["import", "--change", &change, &path.display().to_string(), name]);
    }

    /// Runs `docker` with these arguments.
    pub fn docker(&self, arguments: &[&str]) {
        let run = Command::new("docker").args(["-H", &self.host()]).args(arguments).stdout(Stdio::null()).status();
        assert!(run.expect("docker runs").success(), "docker failed: {arguments:?}");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        terminate(&mut self.daemon.lock());
    }
}

fn spawn(directory: &Path) -> std::io::Result<Child> {
    let path = |name: &str| directory.join(name).display().to_string();
    let log = std::fs::File::create(directory.join("log"))?;
    Command::new("dockerd")
        .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
        .args(["-H", &format!("unix://{}", path("docker.sock"))])
        .args(["--bridge=none", "--iptables=false", "--ip-masq=false", "--ip-forward=false"])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
}

fn terminate(daemon: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).expect("a pid"));
    if let Err(error) = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM) {
        eprintln!("dockerd was not signalled: {error}");
    }
    if let Err(error) = daemon.wait() {
        eprintln!("dockerd did not end: {error}");
    }
}
