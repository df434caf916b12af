//! Work inside another network namespace, on a thread of its own that enters it and ends: no other thread ever changes
//! its namespace. Sockets belong to the namespace that they were made in for life.

use std::{fs::File, io};

use nix::sched::{CloneFlags, setns};

/// Runs `work` inside `netns`, and waits for what it makes.
pub async fn open_inside<T: Send + 'static>(
    netns: File,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, opened) = tokio::sync::oneshot::channel();
    // A caller that has gone needs nothing.
    thread().spawn(move || done.send(enter(&netns, work)).ok())?;
    opened.await.unwrap_or_else(|_| Err(ended_early()))
}

/// As [`open_inside`], for callers that may block.
pub fn run_inside<T: Send + 'static>(
    netns: File,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    thread().spawn(move || enter(&netns, work))?.join().unwrap_or_else(|_| Err(ended_early()))
}

fn enter<T>(netns: &File, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    work()
}

fn thread() -> std::thread::Builder {
    std::thread::Builder::new().name("fairlead-netns".into())
}

fn ended_early() -> io::Error {
    io::Error::other("the thread inside a network namespace panicked")
}
