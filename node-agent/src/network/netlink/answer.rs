//! Answers to single requests: that the kernel did what it was asked for, or which link it has. The crate waits for
//! them for ever, and takes the end of the connection for the end of an answer.

use rtnetlink::Handle;
use tokio::time::timeout;

use super::{Netlink, NetlinkError, failed};

impl Netlink {
    /// What the kernel answers to `request`. One that does not say in time whether it did what it was asked for, or
    /// whose connection ends before it did, is asked over another socket from then on.
    pub(super) async fn answer<T, F>(
        &self,
        operation: String,
        request: impl FnOnce(Handle) -> F,
    ) -> Result<T, NetlinkError>
    where
        F: Future<Output = Result<T, rtnetlink::Error>>,
    {
        let connection = self.socket.connection.load_full();
        let error = match timeout(self.socket.silence, request(connection.handle.clone())).await {
            // The crate takes the end of the connection for the end of the answer.
            Ok(Ok(_)) if connection.ended.is_cancelled() => rtnetlink::Error::RequestFailed,
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => {
                self.reopen().await.map_err(NetlinkError::Open)?;
                return Err(NetlinkError::Unanswered { operation });
            }
        };
        if matches!(error, rtnetlink::Error::RequestFailed) {
            self.reopen().await.map_err(NetlinkError::Open)?;
        }
        Err(failed(operation, error))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio_util::sync::CancellationToken;

    use super::{
        super::{LiveConnection, run},
        *,
    };

    #[tokio::test]
    async fn a_request_that_is_not_answered_is_an_error_and_the_next_one_is_answered() {
        let (_never_polled, handle, _messages) = rtnetlink::new_connection().unwrap();
        let mut netlink = Netlink::open().unwrap();
        Arc::get_mut(&mut netlink.socket).unwrap().silence = Duration::from_millis(100);
        let silent = || Arc::new(LiveConnection { handle: handle.clone(), ended: CancellationToken::new() });
        netlink.socket.connection.store(silent());
        assert!(matches!(netlink.set_up(1).await, Err(NetlinkError::Unanswered { .. })));
        netlink.loopback().await.unwrap();
        netlink.socket.connection.store(silent());
        assert!(matches!(netlink.link("lo").await, Err(NetlinkError::Unanswered { .. })));
        netlink.loopback().await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_ends_before_the_answer_is_an_error_and_the_next_request_is_answered() {
        let netlink = Netlink::open().unwrap();
        let (connection, handle, _messages) = rtnetlink::new_connection().unwrap();
        let ended = CancellationToken::new();
        netlink.socket.connection.store(Arc::new(LiveConnection { handle, ended: ended.clone() }));
        // The request is in the connection when that goes.
        let goes = async {
            ended.cancel();
            drop(connection);
        };
        let (changed, ()) = tokio::join!(biased; netlink.set_up(1), goes);
        assert!(matches!(changed, Err(NetlinkError::Request { .. })), "{changed:?}");
        netlink.loopback().await.unwrap();

        let running = run(rtnetlink::new_connection().unwrap());
        let ended = running.ended.clone();
        drop(running);
        ended.cancelled().await;
    }
}
