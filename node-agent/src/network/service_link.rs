//! The link into the network namespace of the Services, as far as the host's settings concern it. [`crate::proxy`]
//! makes the link and takes it away; here is what the reconciler keeps of it.

use std::io;

use super::forwarding;

/// The host's end of the link.
pub const NAME: &str = "flproxy";

/// Has the kernel forward what comes in by the link, the answers to pods: `net.ipv4.ip_forward=0` takes that from every
/// link. Nothing to do where there is no such link.
pub async fn keep_forwarding() -> io::Result<()> {
    match forwarding::enable(NAME).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
