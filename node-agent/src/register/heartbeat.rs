//! Keeps the Node object and the node's Lease current: the shell around [`NodeDescription`].

use std::time::Duration;

use fairlead_client::{Api, Events, from_value};
use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Client,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher::{self, Event},
};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{live_client::LiveClient, node_object::NodeDescription};
use crate::deadline::{AnswerError, answered, instant_after};

/// As the kubelet: a Lease of 40 s renewed every 10, the status written again every 5 minutes.
const LEASE_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
const STATUS_EVERY: Duration = Duration::from_secs(300);

/// Makes the Node object where it is missing and writes its labels and status.
pub async fn register(client: &Client, node: &NodeDescription) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    match api.create(&PostParams::default(), &from_value(&node.new_object()).map_err(kube::Error::SerdeError)?).await {
        Ok(_) => tracing::info!(node = node.name, "registered"),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let labels = json!({"metadata": {"labels": node.labels()}});
            api.patch(&node.name, &PatchParams::default(), &Patch::Merge(labels)).await?;
        }
        Err(error) => return Err(error),
    }
    write_status(client, node).await
}

async fn write_status(client: &Client, node: &NodeDescription) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let current = api.get(&node.name).await?;
    let conditions =
        serde_json::to_value(current.status.and_then(|status| status.conditions)).map_err(kube::Error::SerdeError)?;
    let conditions = conditions.as_array().cloned().unwrap_or_default();
    let status = json!({"status": node.status(&conditions, Timestamp::now())});
    api.patch_status(&node.name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}

/// Waits until the control service has given the node its pod subnet.
pub async fn pod_cidr(client: &Client, name: &str) -> Result<ipnetwork::Ipv4Network, watcher::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut nodes = Events::new(&api, config);
    loop {
        match nodes.try_next().await {
            Ok(Some(Event::InitApply(node) | Event::Apply(node))) => {
                let cidr = node.spec.and_then(|spec| spec.pod_cidr).and_then(|cidr| cidr.parse().ok());
                if let Some(cidr) = cidr {
                    return Ok(cidr);
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return Err(watcher::Error::NoResourceVersion),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "waiting for the pod subnet"),
        }
    }
}

/// Renews the Lease and repeats the status until `stop`; a change of `node` is written at once, also one that comes
/// with `stop`.
///
/// A failed write is tried again at the next heartbeat: nothing stops because the control service is away. After one
/// that nobody answered in time, requests go over a new connection.
///
/// `registered` says whether [`register`] has succeeded; where the API was away it is done here.
pub async fn run(api: LiveClient, node: watch::Receiver<NodeDescription>, registered: bool, stop: CancellationToken) {
    run_every(RENEW_EVERY, api, node, registered, stop).await;
}

/// [`run`] with another time between two beats, in which a write must be answered, too.
pub(super) async fn run_every(
    renew_every: Duration,
    api: LiveClient,
    mut node: watch::Receiver<NodeDescription>,
    registered: bool,
    stop: CancellationToken,
) {
    let client = api.client();
    let mut is_registered = registered;
    let mut lease_beat = tokio::time::interval(renew_every);
    lease_beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut status_due = tokio::time::Instant::now();
    if registered {
        status_due = instant_after(status_due, STATUS_EVERY);
    }
    let mut renewed = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                if node.has_changed().unwrap_or(false) {
                    let last = node.borrow_and_update().clone();
                    write_final_status(client, &last).await;
                }
                return;
            }
            _ = lease_beat.tick() => {
                let name = node.borrow().name.clone();
                match renew_lease(&api, &name, renew_every).await {
                    Ok(()) => {
                        // One that was late is not repeated at once.
                        lease_beat.reset();
                        // After missed heartbeats the control service may have set conditions to Unknown: only a status
                        // write undoes that.
                        if renewed.elapsed() > 2 * renew_every {
                            status_due = tokio::time::Instant::now();
                        }
                        renewed = tokio::time::Instant::now();
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "cannot renew the node's Lease");
                    }
                }
            }
            changed = node.changed() => {
                if changed.is_err() {
                    return;
                }
                status_due = tokio::time::Instant::now();
            }
            () = tokio::time::sleep_until(status_due) => {}
        }
        if tokio::time::Instant::now() >= status_due {
            let description = node.borrow_and_update().clone();
            let written = match is_registered {
                true => over_live_connection(&api, renew_every, write_status(client, &description)).await,
                false => over_live_connection(&api, renew_every, register(client, &description)).await,
            };
            status_due = match written {
                Ok(()) => {
                    is_registered = true;
                    instant_after(tokio::time::Instant::now(), STATUS_EVERY)
                }
                Err(AnswerError::Failed(kube::Error::Api(status))) if status.code == 404 && is_registered => {
                    tracing::warn!("the Node object is gone, registering again");
                    is_registered = false;
                    tokio::time::Instant::now()
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot write the node's status");
                    instant_after(tokio::time::Instant::now(), renew_every)
                }
            };
        }
    }
}

/// A write that does not succeed in time is only logged: the agent ends in any case.
async fn write_final_status(client: &Client, node: &NodeDescription) {
    const FINAL_STATUS_TIMEOUT: Duration = Duration::from_secs(5);
    match tokio::time::timeout(FINAL_STATUS_TIMEOUT, write_status(client, node)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot write the node's last status");
        }
        Err(_) => tracing::warn!("the node's last status was not written in time"),
    }
}

/// The answer to a request. After none in time the connections are given up: one that leads nowhere says so only when a
/// ping is not answered, and until then all that is asked over it is lost, too.
pub(super) async fn over_live_connection<T>(
    api: &LiveClient,
    limit: Duration,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, AnswerError> {
    let answer = answered(limit, answer).await;
    if matches!(answer, Err(AnswerError::Late(_))) {
        api.forget_connections();
    }
    answer
}

/// Renews the Lease; once more, at once, after no answer in time: over a new connection, and before anything else is
/// written. The control service takes a node for lost four beats after its last renewal.
async fn renew_lease(api: &LiveClient, name: &str, limit: Duration) -> Result<(), AnswerError> {
    let client = api.client();
    match over_live_connection(api, limit, write_lease(client, name)).await {
        Err(late @ AnswerError::Late(_)) => {
            tracing::warn!(
                error = &late as &dyn std::error::Error,
                "the node's Lease was not renewed, trying over a new connection"
            );
            over_live_connection(api, limit, write_lease(client, name)).await
        }
        answer => answer,
    }
}

async fn write_lease(client: &Client, name: &str) -> Result<(), kube::Error> {
    use k8s_openapi::api::coordination::v1::Lease;
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let spec = json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(spec.clone())).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let mut lease = spec;
            lease["metadata"] = json!({"name": name, "namespace": "kube-node-lease"});
            let lease: Lease = from_value(&lease).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &lease).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::register::{facts::MachineFacts, node_object::NodeState};

    pub fn node() -> NodeDescription {
        NodeDescription {
            name: "a".into(),
            internal_ip: std::net::Ipv4Addr::new(10, 0, 0, 1),
            facts: MachineFacts::default(),
            agent_port: 10250,
            max_pods: 110,
            runtime_version: String::new(),
            state: NodeState::default(),
        }
    }

    #[tokio::test]
    async fn a_request_that_nobody_answers_does_not_keep_the_lease_from_being_renewed() {
        let (beats, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let count = Arc::new(AtomicUsize::new(0));
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (beats, beat) = (beats.clone(), count.fetch_add(1, Ordering::Relaxed));
            async move {
                beats.send(request.uri().path().to_owned()).map_err(|error| error.to_string())?;
                if beat == 0 {
                    // Its other end is gone without a word.
                    std::future::pending::<()>().await;
                }
                Ok::<_, String>(http::Response::new(kube::client::Body::from(b"{}".to_vec())))
            }
        });
        let (api, stop) = (LiveClient::new(Client::new(service, "default").into()), CancellationToken::new());
        let (_sender, changes) = watch::channel(node());
        let running = tokio::spawn(run_every(Duration::from_millis(50), api, changes, true, stop.clone()));
        for _ in 0..3 {
            let beat = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.expect("a beat in time");
            assert_eq!(beat.as_deref(), Some("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a"));
        }
        stop.cancel();
        running.await.expect("it ends");
    }
}
