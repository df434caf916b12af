//! Keeps the Node object and the node's Lease current: when which is written.

use std::{convert::Infallible, time::Duration};

use fairlead_client::node_silence::RENEW_EVERY;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    live_client::{KEEP_ALIVE, LiveClient},
    node_object::NodeDescription,
    node_requests::{NodeRequests, log_failed_renewal},
};
use crate::deadline::{AnswerError, instant_after};

/// The status is written again this often, as by the kubelet.
const STATUS_EVERY: Duration = Duration::from_secs(300);
const _: () = assert!(KEEP_ALIVE.interval.as_secs() < RENEW_EVERY.as_secs());

/// Makes the Node object where it is missing and writes its labels and status.
pub async fn register(api: &LiveClient, node: &NodeDescription) -> Result<(), AnswerError> {
    NodeRequests { api, limit: RENEW_EVERY }.register(node).await
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
    node: watch::Receiver<NodeDescription>,
    registered: bool,
    stop: CancellationToken,
) {
    let (requests, beats_were_missed) = (NodeRequests { api: &api, limit: renew_every }, Notify::new());
    let name = node.borrow().name.clone();
    // Side by side: a status takes several requests, over which the Lease must not expire.
    tokio::select! {
        biased;
        never = renew_leases(&requests, &name, &beats_were_missed) => match never {},
        () = keep_status(&requests, node, registered, &beats_were_missed, stop) => {}
    }
}

async fn renew_leases(requests: &NodeRequests<'_>, name: &str, beats_were_missed: &Notify) -> Infallible {
    let mut beat = tokio::time::interval(requests.limit);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    loop {
        beat.tick().await;
        match requests.renew_lease(name).await {
            Ok(()) => {
                // One that was late is not repeated at once.
                beat.reset();
                if renewed.elapsed() > 2 * requests.limit {
                    beats_were_missed.notify_one();
                }
                renewed = Instant::now();
            }
            Err(error) => log_failed_renewal(&error),
        }
    }
}

async fn keep_status(
    requests: &NodeRequests<'_>,
    mut node: watch::Receiver<NodeDescription>,
    registered: bool,
    beats_were_missed: &Notify,
    stop: CancellationToken,
) {
    let mut is_registered = registered;
    let mut due = Instant::now();
    if registered {
        due = instant_after(due, STATUS_EVERY);
    }
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                if node.has_changed().unwrap_or(false) {
                    let last = node.borrow_and_update().clone();
                    write_final_status(requests.api, &last).await;
                }
                return;
            }
            changed = node.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            // The control service may have set conditions to Unknown: only a status write undoes that.
            () = beats_were_missed.notified() => {}
            () = tokio::time::sleep_until(due) => {}
        }
        let description = node.borrow_and_update().clone();
        let write = async {
            match is_registered {
                true => requests.write_status(&description).await,
                false => requests.register(&description).await,
            }
        };
        let Some(written) = stop.run_until_cancelled(write).await else {
            // It may not be written: that is left to the last status.
            node.mark_changed();
            continue;
        };
        due = match written {
            Ok(()) => {
                is_registered = true;
                instant_after(Instant::now(), STATUS_EVERY)
            }
            Err(AnswerError::Failed(kube::Error::Api(status))) if status.code == 404 && is_registered => {
                tracing::warn!("the Node object is gone, registering again");
                is_registered = false;
                Instant::now()
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot write the node's status");
                instant_after(Instant::now(), requests.limit)
            }
        };
    }
}

/// A write that does not succeed in time is only logged: the agent ends in any case.
async fn write_final_status(api: &LiveClient, node: &NodeDescription) {
    const FINAL_STATUS_TIMEOUT: Duration = Duration::from_secs(5);
    let requests = NodeRequests { api, limit: FINAL_STATUS_TIMEOUT };
    match tokio::time::timeout(FINAL_STATUS_TIMEOUT, requests.write_status(node)).await {
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

    use kube::Client;
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;
    use crate::register::{facts::MachineFacts, node_object::NodeState};

    /// More than anything here takes, on a busy machine too.
    const LONG: Duration = Duration::from_secs(60);
    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a";

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
        let (beats, mut heard) = mpsc::unbounded_channel();
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
            assert_eq!(beat.as_deref(), Some(LEASE));
        }
        stop.cancel();
        running.await.expect("it ends");
    }

    /// Knows the node already, and answers what is asked about it after so long.
    fn slow(answers_after: Duration, asked: mpsc::UnboundedSender<String>) -> LiveClient {
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let asked = asked.clone();
            async move {
                let path = request.uri().path().to_owned();
                asked.send(format!("{} {path}", request.method())).map_err(|error| error.to_string())?;
                if path != LEASE {
                    tokio::time::sleep(answers_after).await;
                }
                let (code, body) = match *request.method() == http::Method::POST {
                    true => {
                        (409, json!({"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409}))
                    }
                    false => (200, json!({})),
                };
                let response = http::Response::builder()
                    .status(code)
                    .body(kube::client::Body::from(body.to_string().into_bytes()));
                response.map_err(|error| error.to_string())
            }
        });
        LiveClient::new(Client::new(service, "default").into())
    }

    #[tokio::test]
    async fn a_slow_api_has_its_time_for_each_request_of_a_registration() {
        const LIMIT: Duration = Duration::from_secs(2);
        let (asked, mut heard) = mpsc::unbounded_channel();
        let begun = Instant::now();
        NodeRequests { api: &slow(LIMIT * 3 / 10, asked), limit: LIMIT }.register(&node()).await.unwrap();
        assert!(begun.elapsed() > LIMIT);
        assert_eq!(std::iter::from_fn(|| heard.try_recv().ok()).count(), 4);
    }

    #[tokio::test]
    async fn the_lease_is_renewed_while_a_registration_takes_longer_than_a_beat() {
        const BEAT: Duration = Duration::from_secs(1);
        let (asked, mut heard) = mpsc::unbounded_channel();
        let (api, stop) = (slow(BEAT / 2, asked), CancellationToken::new());
        let (_sender, changes) = watch::channel(node());
        let running = tokio::spawn(run_every(BEAT, api, changes, false, stop.clone()));
        let mut order = Vec::new();
        while !order.ends_with(&["PATCH /api/v1/nodes/a/status".to_owned()]) {
            order.push(tokio::time::timeout(LONG, heard.recv()).await.expect("it registers").unwrap());
        }
        let begins = order.iter().position(|asked| asked == "POST /api/v1/nodes").unwrap();
        assert!(order[begins..].contains(&format!("PATCH {LEASE}")), "{order:?}");
        stop.cancel();
        running.await.expect("it ends");
    }

    #[tokio::test]
    async fn to_stop_waits_for_no_answer_and_writes_what_changed() {
        let (nodes, status) = ("/api/v1/nodes/a", "/api/v1/nodes/a/status");
        // With a Lease, and with a status, that nobody answers.
        for unanswered in [LEASE, nodes] {
            let (paths, mut heard) = mpsc::unbounded_channel::<String>();
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
            sender.send_replace(node());
            let running = tokio::spawn(run_every(Duration::from_secs(600), api, changes, true, stop.clone()));
            let mut awaited = match unanswered == LEASE {
                true => vec![LEASE, nodes, status],
                false => vec![LEASE, nodes],
            };
            while !awaited.is_empty() {
                let path = tokio::time::timeout(LONG, heard.recv()).await.expect("it is asked").unwrap();
                awaited.retain(|awaited| *awaited != path);
            }
            if unanswered == LEASE {
                sender.send_replace(node());
            }
            stop.cancel();
            tokio::time::timeout(LONG, running).await.expect("long before the next beat").expect("it ends");
            let written: Vec<String> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
            assert_eq!(written, [nodes, status], "{unanswered}");
        }
    }
}
