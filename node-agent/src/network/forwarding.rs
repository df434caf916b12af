//! Forwarding of what comes in by links of our own.

use std::io;

/// Has the kernel forward packets that come in by this link, in the namespace of the calling thread. The link takes the
/// setting with it when it goes: nothing to record.
pub async fn enable(link: &str) -> io::Result<()> {
    tokio::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/forwarding"), "1").await
}
