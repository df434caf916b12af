//! Keeps the Node object and the node's Lease current: the shell around [`NodeDescription`].

use std::time::{Duration, Instant};

use fairlead_client::{Api, Events, from_value};
use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{
    Client,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher::{self, Event},
};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    live_client::{KEEP_ALIVE, LiveClient},
    node_object::NodeDescription,
};
use crate::deadline::{AnswerError, answered, instant_after};

/// As the kubelet: a Lease of 40 s renewed every 10, the status written again every 5 minutes.
const LEASE_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
const STATUS_EVERY: Duration = Duration::from_secs(300);
const _: () = assert!(KEEP_ALIVE.interval.as_secs() < RENEW_EVERY.as_secs());

/// Makes the Node object where it is missing and writes its labels and status.
pub async fn register(api: &LiveClient, node: &NodeDescription) -> Result<(), AnswerError> {
    Asking { api, limit: RENEW_EVERY }.register(node).await
}

/// Sends requests one after the other, each of which must be answered within `limit`.
pub(super) struct Asking<'a> {
    pub api: &'a LiveClient,
    pub limit: Duration,
}

impl Asking<'_> {
    /// The answer to one request. After none in time the connections that were silent since are given up: one that
    /// leads nowhere says so only when a ping is not answered, and until then all that is asked over it is lost, too.
    pub async fn answer<T>(&self, answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, AnswerError> {
        let sent = Instant::now();
        let answer = answered(self.limit, answer).await;
        if matches!(answer, Err(AnswerError::Late(_))) {
            self.api.forget_silent_since(sent);
        }
        answer
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.api.client().clone())
    }

    async fn register(&self, node: &NodeDescription) -> Result<(), AnswerError> {
        let api = self.nodes();
        let new = from_value(&node.new_object()).map_err(kube::Error::SerdeError)?;
        match self.answer(api.create(&PostParams::default(), &new)).await {
            Ok(_) => tracing::info!(node = node.name, "registered"),
            Err(AnswerError::Failed(kube::Error::Api(status))) if status.reason == "AlreadyExists" => {
                let labels = Patch::Merge(json!({"metadata": {"labels": node.labels()}}));
                self.answer(api.patch(&node.name, &PatchParams::default(), &labels)).await?;
            }
            Err(error) => return Err(error),
        }
        self.write_status(node).await
    }

    async fn write_status(&self, node: &NodeDescription) -> Result<(), AnswerError> {
        let api = self.nodes();
        let conditions = self.answer(api.get(&node.name)).await?.status.and_then(|status| status.conditions);
        let conditions = serde_json::to_value(conditions).map_err(kube::Error::SerdeError)?;
        let conditions = conditions.as_array().cloned().unwrap_or_default();
        let status = Patch::Strategic(json!({"status": node.status(&conditions, Timestamp::now())}));
        self.answer(api.patch_status(&node.name, &PatchParams::default(), &status)).await?;
        Ok(())
    }

    /// Renews the Lease; once more, at once, after no answer in time: before anything else is written, and over a new
    /// connection where the old one is silent. The control service takes a node for lost four beats after its last
    /// renewal.
    async fn renew_lease(&self, name: &str) -> Result<(), AnswerError> {
        match self.write_lease(name).await {
            Err(late @ AnswerError::Late(_)) => {
                log_no_renewal(&late);
                self.write_lease(name).await
            }
            answer => answer,
        }
    }

    async fn write_lease(&self, name: &str) -> Result<(), AnswerError> {
        let api: Api<Lease> = Api::namespaced(self.api.client().clone(), "kube-node-lease");
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let spec = json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}});
        match self.answer(api.patch(name, &PatchParams::default(), &Patch::Merge(spec.clone()))).await {
            Ok(_) => Ok(()),
            Err(AnswerError::Failed(kube::Error::Api(status))) if status.code == 404 => {
                let mut lease = spec;
                lease["metadata"] = json!({"name": name, "namespace": "kube-node-lease"});
                let lease: Lease = from_value(&lease).map_err(kube::Error::SerdeError)?;
                self.answer(api.create(&PostParams::default(), &lease)).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }
}

/// Without an answer nobody knows whether the Lease was renewed.
fn log_no_renewal(error: &AnswerError) {
    match error {
        AnswerError::Late(limit) => {
            tracing::warn!("no answer to the Lease's renewal within {} s", limit.as_secs_f32());
        }
        AnswerError::Failed(error) => {
            tracing::warn!(error = error as &dyn std::error::Error, "cannot renew the node's Lease");
        }
    }
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
/// that nobody answered in time, requests go over a new connection where the old one is silent. `stop` ends a write
/// that is under way.
///
/// `registered` says whether [`register`] has succeeded; where the API was away it is done here.
pub async fn run(api: LiveClient, node: watch::Receiver<NodeDescription>, registered: bool, stop: CancellationToken) {
    run_every(RENEW_EVERY, api, node, registered, stop).await;
}

/// [`run`] with another time between two beats, in which each request must be answered, too.
pub(super) async fn run_every(
    renew_every: Duration,
    api: LiveClient,
    mut node: watch::Receiver<NodeDescription>,
    registered: bool,
    stop: CancellationToken,
) {
    let asking = Asking { api: &api, limit: renew_every };
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
            biased;
            () = stop.cancelled() => {
                if node.has_changed().unwrap_or(false) {
                    let last = node.borrow_and_update().clone();
                    write_final_status(&api, &last).await;
                }
                return;
            }
            _ = lease_beat.tick() => {
                let name = node.borrow().name.clone();
                let Some(answer) = stop.run_until_cancelled(asking.renew_lease(&name)).await else { continue };
                match answer {
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
                    Err(error) => log_no_renewal(&error),
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
            let write = async {
                match is_registered {
                    true => asking.write_status(&description).await,
                    false => asking.register(&description).await,
                }
            };
            let Some(written) = stop.run_until_cancelled(write).await else {
                // It may not be written: that is left to the last status.
                node.mark_changed();
                continue;
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
async fn write_final_status(api: &LiveClient, node: &NodeDescription) {
    const FINAL_STATUS_TIMEOUT: Duration = Duration::from_secs(5);
    let asking = Asking { api, limit: FINAL_STATUS_TIMEOUT };
    match tokio::time::timeout(FINAL_STATUS_TIMEOUT, asking.write_status(node)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot write the node's last status");
        }
        Err(_) => tracing::warn!("the node's last status was not written in time"),
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

    #[tokio::test]
    async fn a_slow_api_has_its_time_for_each_request_of_a_registration() {
        const LIMIT: Duration = Duration::from_secs(2);
        let service = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
            tokio::time::sleep(LIMIT * 3 / 10).await;
            let (code, body) = match *request.method() == http::Method::POST {
                true => (409, json!({"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409})),
                false => (200, json!({})),
            };
            let response =
                http::Response::builder().status(code).body(kube::client::Body::from(body.to_string().into_bytes()));
            response.map_err(|error| error.to_string())
        });
        let api = LiveClient::new(Client::new(service, "default").into());
        let begun = tokio::time::Instant::now();
        Asking { api: &api, limit: LIMIT }.register(&node()).await.unwrap();
        assert!(begun.elapsed() > LIMIT, "four requests");
    }

    #[tokio::test]
    async fn to_stop_waits_for_no_answer_and_writes_what_changed() {
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a";
        let (nodes, status) = ("/api/v1/nodes/a", "/api/v1/nodes/a/status");
        // With a Lease, and with a status, that nobody answers.
        for unanswered in [lease, nodes] {
            let (paths, mut heard) = tokio::sync::mpsc::unbounded_channel::<String>();
            let is_first = Arc::new(AtomicUsize::new(0));
            let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
                let (paths, path, is_first) = (paths.clone(), request.uri().path().to_owned(), is_first.clone());
                async move {
                    paths.send(path.clone()).map_err(|error| error.to_string())?;
                    if path == unanswered && is_first.fetch_add(1, Ordering::Relaxed) == 0 {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, String>(http::Response::new(kube::client::Body::from(b"{}".to_vec())))
                }
            });
            let (api, stop) = (LiveClient::new(Client::new(service, "default").into()), CancellationToken::new());
            let (sender, changes) = watch::channel(node());
            // This is written before the first beat, or after it.
            sender.send_replace(node());
            let running = tokio::spawn(run_every(Duration::from_secs(600), api, changes, true, stop.clone()));
            let long = Duration::from_secs(60);
            while tokio::time::timeout(long, heard.recv()).await.expect("it is asked").as_deref() != Some(unanswered) {}
            if unanswered == lease {
                sender.send_replace(node());
            }
            stop.cancel();
            tokio::time::timeout(long, running).await.expect("long before the next beat").expect("it ends");
            let written: Vec<String> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
            assert_eq!(written, [nodes, status], "{unanswered}");
        }
    }
}
