//! Registers the node at its start, or decides that it starts with what it last knew, since the API is away.

use std::time::Duration;

use super::StartError;
use crate::{
    register::{assignment::Assignment, heartbeat, node_object::NodeDescription},
    retry::retry_while_transient,
};

/// Registers this node and learns its pod subnet. Where the API is away and the node has a last known subnet, that is
/// taken, and the heartbeat registers later: the second value is then `false`.
pub async fn assignment(
    client: &kube::Client,
    node: &NodeDescription,
    last_known: Option<Assignment>,
    patience: Duration,
) -> Result<(Assignment, bool), StartError> {
    let ask = async {
        retry_while_unavailable("register this node", || heartbeat::register(client, node)).await?;
        let pod_cidr = heartbeat::pod_cidr(client, &node.name).await.map_err(StartError::PodCidr)?;
        Ok((Assignment { pod_cidr, runtime_version: node.runtime_version.clone() }, true))
    };
    let Some(last_known) = last_known else { return ask.await };
    match tokio::time::timeout(patience, ask).await {
        Ok(answer) => answer,
        Err(_) => {
            tracing::warn!("the API is away: this node starts with what it last knew");
            Ok((last_known, false))
        }
    }
}

/// Repeats `act` while the API cannot be reached or is not itself ready; other refusals are errors.
async fn retry_while_unavailable<T, F>(what: &'static str, act: impl Fn() -> F) -> Result<T, StartError>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let is_refusal = |status: &kube::core::Status| status.code < 500 && status.code != 429;
    let is_transient = |error: &kube::Error| !matches!(error, kube::Error::Api(status) if is_refusal(status));
    let refused = |source| StartError::Refused { what, source: Box::new(source) };
    retry_while_transient(what, is_transient, act).await.map_err(refused)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::register::{facts::MachineFacts, node_object::NodeState};

    /// A client of an API that nobody serves.
    fn client_of_nobody() -> kube::Client {
        // The port is free once the listener is dropped.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap()
    }

    fn node() -> NodeDescription {
        NodeDescription {
            name: "a".into(),
            internal_ip: Ipv4Addr::LOCALHOST,
            facts: MachineFacts::default(),
            agent_port: 10250,
            max_pods: 110,
            runtime_version: "docker://2".into(),
            state: NodeState::default(),
        }
    }

    #[tokio::test]
    async fn a_node_that_ran_before_starts_without_the_api_and_registers_later() {
        let known = Assignment { pod_cidr: "10.244.3.0/24".parse().unwrap(), runtime_version: "docker://1".into() };
        let started =
            assignment(&client_of_nobody(), &node(), Some(known.clone()), Duration::from_millis(100)).await.unwrap();
        assert_eq!(started, (known, false));
    }

    #[tokio::test]
    async fn a_node_that_never_ran_waits_for_the_api() {
        let (client, node) = (client_of_nobody(), node());
        let waiting = assignment(&client, &node, None, Duration::ZERO);
        assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
    }
}
