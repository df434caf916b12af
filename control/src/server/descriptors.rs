//! How many files this process may have open: every watcher is a connection, and the usual soft limit of 1,024 is soon
//! reached.

/// Raises the soft limit to the hard one, as Go's runtime does for the programs people know. Returns the limit that
/// holds from now on.
pub fn raise_limit() -> u64 {
    // Where it cannot be read: Linux' own.
    let mut soft = 1024;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the one structure that they are given.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            soft = limit.rlim_cur;
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    if raised {
        return limit.rlim_cur;
    }
    tracing::warn!("cannot raise the limit of open files: {}", std::io::Error::last_os_error());
    soft
}
