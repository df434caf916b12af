//! The container runtime at the agent's start: a node that ran before does not need it for names and Services.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::StartError;
use crate::{
    Config,
    health::probes::ProbeResults,
    register::{
        assignment::Assignment,
        node_object::{NodeDescription, NodeState},
    },
    retry::retry_while_transient,
    runtime::{self, Runtime},
};

/// How long a node that can start without its container runtime waits for it first.
pub const RUNTIME_ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// The container runtime. Where this node ran before, one that is away, or does not answer in time, is waited for
/// later, when names and hooks are there; at the first start that is an error, since then it was most likely never
/// installed.
pub async fn connect_unless_known(
    config: &Config,
    last_known: Option<&Assignment>,
    patience: Duration,
) -> Result<Option<Arc<dyn Runtime>>, StartError> {
    if last_known.is_none() {
        return connect(config).await.map(Some).map_err(StartError::Runtime);
    }
    match tokio::time::timeout(patience, connect(config)).await {
        Ok(Ok(runtime)) => return Ok(Some(runtime)),
        Ok(Err(error)) => tracing::warn!(error = error.chain(), "the container runtime is away: pods wait for it"),
        Err(_) => tracing::warn!(?patience, "the container runtime does not answer: pods wait for it"),
    }
    Ok(None)
}

async fn connect(config: &Config) -> Result<Arc<dyn Runtime>, runtime::Error> {
    Ok(Arc::new(runtime::docker::Docker::connect(&config.docker_host, &config.node_name).await?))
}

/// Waits for the runtime, and says in the Node object and in `/readyz` why.
pub async fn wait_for_runtime(
    config: &Config,
    node: &watch::Sender<NodeDescription>,
    probes: &watch::Sender<ProbeResults>,
) -> Result<Arc<dyn Runtime>, runtime::Error> {
    let say = |why: String| probes.send_modify(|results| results.runtime = Some(why));
    // One that says nothing at all gives no other reason.
    say("the container runtime does not answer; pods wait for it".to_owned());
    let is_away = |error: &runtime::Error| {
        say(error.chain());
        let state = NodeState { runtime: Some(error.chain()), ..NodeState::default() };
        node.send_if_modified(|node| std::mem::replace(&mut node.state, state.clone()) != state);
        // Whatever it says: what is served goes on, and the Node object names the reason.
        true
    };
    retry_while_transient("use the container runtime", is_away, || connect(config)).await
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        health::{Health, Severity},
        register::facts::MachineFacts,
    };

    #[tokio::test]
    async fn a_node_that_ran_before_starts_though_its_runtime_is_away_or_says_nothing_or_nonsense() {
        let directory = tempfile::tempdir().unwrap();
        let known = Assignment { pod_cidr: "10.244.3.0/24".parse().unwrap(), runtime_version: "docker://1".into() };
        let access = crate::config::Access::Kubeconfig("/nonexistent".into());
        let mut config = Config::new("a", directory.path(), access);
        let patience = Duration::from_millis(200);
        let away = directory.path().join("away.sock");
        let silent = directory.path().join("silent.sock");
        let _silent = std::os::unix::net::UnixListener::bind(&silent).unwrap();
        let failing = directory.path().join("failing.sock");
        let listener = tokio::net::UnixListener::bind(&failing).unwrap();
        let refuse = || async { (axum::http::StatusCode::INTERNAL_SERVER_ERROR, "no space left on device") };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(refuse)).await });
        for socket in [away, silent, failing] {
            config.docker_host = format!("unix://{}", socket.display());
            let started = connect_unless_known(&config, Some(&known), patience).await;
            assert!(matches!(started, Ok(None)), "{}", socket.display());
        }
        config.docker_host = format!("unix://{}/away.sock", directory.path().display());
        assert!(connect_unless_known(&config, None, patience).await.is_err(), "it was never there");
    }

    #[tokio::test]
    async fn readyz_names_the_runtime_that_pods_wait_for() {
        let directory = tempfile::tempdir().unwrap();
        let access = crate::config::Access::Kubeconfig("/nonexistent".into());
        let mut config = Config::new("a", directory.path(), access);
        config.docker_host = format!("unix://{}/away.sock", directory.path().display());
        let node = watch::Sender::new(NodeDescription {
            name: "a".into(),
            internal_ip: Ipv4Addr::LOCALHOST,
            facts: MachineFacts::default(),
            agent_port: 0,
            max_pods: 0,
            runtime_version: String::new(),
            state: NodeState::default(),
        });
        let (publish, mut probes) = watch::channel(ProbeResults::default());
        let waiting = tokio::spawn(async move { wait_for_runtime(&config, &node, &publish).await.map(drop) });
        let refused = |found: &ProbeResults| found.runtime.as_ref().is_some_and(|why| why.contains("away.sock"));
        drop(probes.wait_for(refused).await.expect("the waiting task tells"));
        let found = probes.clone();
        let health = Health::default().check("runtime", Severity::NotReady, move || found.borrow().runtime.clone());
        let results = health.results(Severity::NotReady);
        assert!(results[0].failure.as_ref().is_some_and(|why| why.contains("away.sock")), "{results:?}");
        waiting.abort();
    }
}
