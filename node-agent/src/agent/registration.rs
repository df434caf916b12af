//! Makes the node known at its start: registers it, keeps its heartbeat from then on, and learns its pod subnet; or
//! decides that it starts with what it last knew, since the API is away.

use std::time::Duration;

use tokio::sync::watch;

use super::StartError;
use crate::{
    deadline::AnswerError,
    register::{
        assignment::{self, Assignment},
        heartbeat,
        live_client::LiveClient,
        node_object::{NodeDescription, NodeState},
    },
    retry::retry_while_transient,
    supervise::Supervisor,
};

/// How long is waited before something else is done.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the API, by a node that can start without it.
    pub api: Duration,
    /// For a pod subnet, until the Node says that it has none: a control service that has one left assigns it at once.
    pub subnet: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { api: Duration::from_secs(3), subnet: Duration::from_secs(10) }
    }
}

/// The state of a node whose agent is not ready yet.
pub fn starting() -> NodeState {
    NodeState::not_running("the node agent is starting")
}

/// Registers this node, spawns its heartbeat on `supervisor`, and waits for its pod subnet. The heartbeat comes first:
/// a node that gets no subnet says so in its Node object, and does not look lost.
///
/// Where the API does not answer in time and the node has a last known subnet, that is taken, and the
/// heartbeat registers later.
pub async fn assignment(
    api: &LiveClient,
    node: &watch::Sender<NodeDescription>,
    last_known: Option<Assignment>,
    patience: Patience,
    supervisor: &Supervisor,
) -> Result<Assignment, StartError> {
    let (described, client) = (node.borrow().clone(), api.client());
    let registration = retry_while_unavailable("register this node", || heartbeat::register(api, &described));
    let registered = match &last_known {
        None => registration.await.map(|()| true)?,
        Some(_) => match tokio::time::timeout(patience.api, registration).await {
            Ok(registered) => registered.map(|()| true)?,
            Err(_) => false,
        },
    };
    let (for_heartbeat, changes) = (api.clone(), node.subscribe());
    supervisor.spawn("heartbeat", move |stop| heartbeat::run(for_heartbeat.clone(), changes.clone(), registered, stop));
    let pod_cidr = match &last_known {
        None => pod_subnet(client, node, patience.subnet).await?,
        Some(last_known) => {
            let limit = if registered { patience.api } else { Duration::ZERO };
            match tokio::time::timeout(limit, assignment::pod_cidr(client, &described.name)).await {
                Ok(pod_cidr) => pod_cidr.map_err(StartError::PodCidr)?,
                Err(_) => {
                    tracing::warn!("the API gives no pod subnet in time: this node starts with what it last knew");
                    return Ok(last_known.clone());
                }
            }
        }
    };
    Ok(Assignment { pod_cidr, runtime_version: described.runtime_version })
}

/// Waits for the pod subnet for as long as it takes. After a while the Node object and the log say what is waited for.
async fn pod_subnet(
    client: &kube::Client,
    node: &watch::Sender<NodeDescription>,
    comes_within: Duration,
) -> Result<ipnetwork::Ipv4Network, StartError> {
    let name = node.borrow().name.clone();
    let assigned = assignment::pod_cidr(client, &name);
    tokio::pin!(assigned);
    let mut wait = comes_within;
    let pod_cidr = loop {
        tokio::select! {
            assigned = &mut assigned => break assigned.map_err(StartError::PodCidr)?,
            () = tokio::time::sleep(wait) => {
                tracing::warn!(node = name, "waiting for a pod subnet: {NO_SUBNET}");
                let state = NodeState { network: Some(NO_SUBNET.to_owned()), ..NodeState::default() };
                node.send_if_modified(|node| std::mem::replace(&mut node.state, state.clone()) != state);
                wait = REMIND_EVERY;
            }
        }
    };
    node.send_if_modified(|node| std::mem::replace(&mut node.state, starting()) != starting());
    Ok(pod_cidr)
}

/// Between two warnings in the log.
const REMIND_EVERY: Duration = Duration::from_secs(300);
const NO_SUBNET: &str = "no pod subnet is assigned to this node: the cluster's range (--cluster-cidr) may have none \
                         left of the size --node-cidr-mask-size";

/// Repeats `act` while the API cannot be reached or is not itself ready; other refusals are errors.
async fn retry_while_unavailable<T, F>(what: &'static str, act: impl Fn() -> F) -> Result<T, StartError>
where
    F: Future<Output = Result<T, AnswerError>>,
{
    let is_refusal = |status: &kube::core::Status| status.code < 500 && status.code != 429;
    let is_transient =
        |error: &AnswerError| !matches!(error, AnswerError::Failed(kube::Error::Api(status)) if is_refusal(status));
    let refused = |source| StartError::Refused { what, source: Box::new(source) };
    retry_while_transient(what, is_transient, act).await.map_err(refused)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use axum::{
        Json, Router,
        body::{Body, Bytes},
        extract::{Query, State},
        http::StatusCode,
        response::{IntoResponse, Response},
        routing::{get, patch},
    };
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;
    use crate::register::facts::MachineFacts;

    /// A client of an API that nobody serves.
    fn client_of_nobody() -> kube::Client {
        // The port is free once the listener is dropped.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap()
    }

    fn node() -> watch::Sender<NodeDescription> {
        watch::Sender::new(NodeDescription {
            name: "a".into(),
            internal_ip: Ipv4Addr::LOCALHOST,
            facts: MachineFacts::default(),
            agent_port: 10250,
            max_pods: 110,
            runtime_version: "docker://2".into(),
            state: starting(),
        })
    }

    #[tokio::test]
    async fn a_node_that_ran_before_starts_without_the_api_and_registers_later() {
        let known = Assignment { pod_cidr: "10.244.3.0/24".parse().unwrap(), runtime_version: "docker://1".into() };
        let (api, supervisor) = (LiveClient::new(client_of_nobody().into()), Supervisor::new());
        let patience = Patience { api: Duration::from_millis(100), ..Patience::default() };
        let started = assignment(&api, &node(), Some(known.clone()), patience, &supervisor).await.unwrap();
        assert_eq!(started, known);
        assert_eq!(supervisor.tasks()[0].name, "heartbeat");
        supervisor.shutdown().await;
    }

    #[tokio::test]
    async fn a_node_that_never_ran_waits_for_the_api() {
        let (api, node, supervisor) = (LiveClient::new(client_of_nobody().into()), node(), Supervisor::new());
        let waiting = assignment(&api, &node, None, Patience::default(), &supervisor);
        assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
    }

    /// An API that assigns a subnet only when it is told to.
    struct Api {
        subnet: watch::Sender<Option<&'static str>>,
        leases: mpsc::UnboundedSender<()>,
        statuses: mpsc::UnboundedSender<Value>,
    }

    impl Api {
        fn node(&self) -> Value {
            let spec = self.subnet.borrow().map(|subnet| json!({ "podCIDR": subnet })).unwrap_or_default();
            let metadata = json!({ "name": "a", "resourceVersion": if spec.is_null() { "1" } else { "2" } });
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec })
        }

        fn client(self) -> kube::Client {
            let read = |State(api): State<Arc<Api>>| async move { Json(api.node()) };
            let exists = || async { (StatusCode::CONFLICT, Json(json!({ "reason": "AlreadyExists", "code": 409 }))) };
            let report = |State(api): State<Arc<Api>>, Json(patch): Json<Value>| async move {
                api.statuses.send(patch["status"].clone()).unwrap();
                Json(api.node())
            };
            let renew = |State(api): State<Arc<Api>>| async move {
                api.leases.send(()).unwrap();
                Json(json!({}))
            };
            let router = Router::new()
                .route("/api/v1/nodes", get(list_or_watch).post(exists))
                .route("/api/v1/nodes/a", get(read).patch(read))
                .route("/api/v1/nodes/a/status", patch(report))
                .route("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a", patch(renew))
                .with_state(Arc::new(self));
            kube::Client::new(router, "default")
        }
    }

    async fn list_or_watch(State(api): State<Arc<Api>>, Query(query): Query<Vec<(String, String)>>) -> Response {
        if !query.iter().any(|(name, value)| name == "watch" && value == "true") {
            let metadata = json!({ "resourceVersion": "1" });
            let list = json!({ "kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": [api.node()] });
            return Json(list).into_response();
        }
        let events = futures::stream::once(async move {
            let mut subnet = api.subnet.subscribe();
            subnet.wait_for(Option::is_some).await.unwrap();
            Ok::<_, std::io::Error>(Bytes::from(format!("{}\n", json!({ "type": "MODIFIED", "object": api.node() }))))
        });
        Body::from_stream(events).into_response()
    }

    fn ready(status: &Value) -> (&str, &str) {
        let conditions = status["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
        (ready["status"].as_str().unwrap(), ready["message"].as_str().unwrap())
    }

    #[tokio::test]
    async fn a_node_that_gets_no_pod_subnet_keeps_its_heartbeat_and_says_what_it_waits_for() {
        let subnet = watch::Sender::new(None);
        let ((leases, mut renewed), (statuses, mut written)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let api = LiveClient::new(Api { subnet: subnet.clone(), leases, statuses }.client().into());
        let (node, supervisor) = (node(), Supervisor::new());
        let patience = Patience { subnet: Duration::from_millis(20), ..Patience::default() };
        let waiting = assignment(&api, &node, None, patience, &supervisor);
        let observing = async {
            assert_eq!(ready(&written.recv().await.unwrap()), ("False", "the node agent is starting"));
            let status = written.recv().await.unwrap();
            let (is_ready, message) = ready(&status);
            assert_eq!(is_ready, "False");
            assert!(message.contains("no pod subnet is assigned"), "{message}");
            renewed.recv().await.unwrap();
            subnet.send_replace(Some("10.244.9.0/24"));
        };
        let limit = Duration::from_secs(60);
        let (assigned, ()) = tokio::time::timeout(limit, async { tokio::join!(waiting, observing) }).await.unwrap();
        assert_eq!(assigned.unwrap().pod_cidr, "10.244.9.0/24".parse().unwrap());
        assert_eq!(node.borrow().state, starting());
        supervisor.shutdown().await;
    }
}
