//! Becomes a member of the cluster, which may take long: the control service is away, or takes the node's earlier agent
//! for one that reports. Nothing is on the host before.

use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::{
    Config,
    register::{self, Membership, RegisterError, silence_wait},
    retry::retry_while_transient,
};

/// Repeats until the node has joined, or `stop`.
pub async fn join(config: &Config, stop: &CancellationToken) -> Result<Membership, StartError> {
    let access = || register::access(&config.access, &config.node_name, &config.data_dir);
    let join = || retry_while_transient("join the cluster", RegisterError::is_transient, access);
    let joined = stop.run_until_cancelled(silence_wait::join_after_silence(&config.node_name, join)).await;
    Ok(joined.ok_or(StartError::Stopped)??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Access;

    #[tokio::test]
    async fn a_join_that_waits_for_the_control_service_ends_when_nobody_wants_it_any_more() {
        // The port is free once the listener is dropped.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("https://{}", listener.local_addr().unwrap());
        drop(listener);
        let token = format!("abcdef.0123456789abcdef.{}", "0".repeat(64));
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new("a", dir.path(), Access::Join { server, token });
        let stop = CancellationToken::new();
        let (joined, ()) = tokio::join!(join(&config, &stop), async {
            tokio::task::yield_now().await;
            stop.cancel();
        });
        assert!(matches!(joined, Err(StartError::Stopped)));
    }
}
