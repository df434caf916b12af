//! A Job controller that is killed at any of its requests, and started again, ends in the same state.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures::future::join_all;
use http::{Method, Request, Response};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Api, Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    Cluster, PATIENCE, create_in_default,
    jobs::{conditions, is_finished, job},
};
use crate::controllers;

/// Lets writes of Jobs and pods pass until the process that makes them is dead.
struct Killer {
    writes: AtomicUsize,
    /// How many are answered; the next one is the last that is sent, or the first that is not.
    answered: usize,
    is_last_sent: bool,
    dead: Notify,
    /// Pods that were created.
    created: Arc<AtomicUsize>,
}

impl Killer {
    fn client(self: Arc<Self>, inner: Client) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let (killer, inner) = (self.clone(), inner.clone());
            async move { killer.pass(inner, request).await }
        });
        Client::new(service, "default")
    }

    async fn pass(&self, inner: Client, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let path = request.uri().path();
        let counts = request.method() != Method::GET && (path.contains("/jobs") || path.contains("/pods"));
        let creates = request.method() == Method::POST && path.ends_with("/pods");
        let write = if counts { self.writes.fetch_add(1, SeqCst) } else { self.writes.load(SeqCst) };
        if write > self.answered || (counts && write == self.answered && !self.is_last_sent) {
            self.dead.notify_one();
            return Err(dead());
        }
        let answer = inner.send(request).await?;
        if creates && answer.status().is_success() {
            self.created.fetch_add(1, SeqCst);
        }
        if counts && write == self.answered {
            self.dead.notify_one();
            return Err(dead());
        }
        Ok(answer)
    }
}

fn dead() -> kube::Error {
    kube::Error::Service(std::io::Error::other("the process is dead").into())
}

struct Case {
    name: &'static str,
    image: &'static str,
    spec: Value,
    end: &'static str,
    /// Succeeded and failed pods, as they must be counted; `None` where that depends on what ends first.
    counts: Option<(i32, i32)>,
    completed: &'static str,
}

fn cases() -> [Case; 3] {
    [
        Case {
            name: "sum",
            image: "exit-0",
            spec: json!({"completions": 3, "parallelism": 2}),
            end: "Complete CompletionsReached",
            counts: Some((3, 0)),
            completed: "",
        },
        Case {
            name: "each",
            image: "exit-index",
            spec: json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 0}),
            end: "Failed FailedIndexes",
            counts: Some((1, 2)),
            completed: "0",
        },
        Case {
            name: "fail",
            image: "exit-1",
            spec: json!({"completions": 4, "parallelism": 2, "backoffLimit": 0}),
            end: "Failed BackoffLimitExceeded",
            counts: None,
            completed: "",
        },
    ]
}

/// So many clusters try the points of death in turn: a Job waits for its next pass most of the time.
const CLUSTERS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_ends_alike_wherever_its_controller_was_killed() {
    join_all((0..CLUSTERS).map(kill_at_each)).await;
}

/// Kills the controller at every [`CLUSTERS`]th point, from `first` on, until it lives through a whole Job.
async fn kill_at_each(first: usize) {
    let cluster = Cluster::start(1).await;
    cluster.controllers.shutdown().await;
    for case in cases() {
        let mut point = first;
        while kill_at(&cluster, &case, point / 2, point % 2 == 1).await {
            point += CLUSTERS;
        }
        assert!(point / 2 > 5, "{} writes were enough for {}", point / 2, case.name);
    }
    cluster.stop().await;
}

/// Runs the Job with a controller that dies, then with one that does not. Returns whether the first did die.
async fn kill_at(cluster: &Cluster, case: &Case, answered: usize, is_last_sent: bool) -> bool {
    let name = format!("{}-{answered}-{is_last_sent}", case.name);
    let created = Arc::new(AtomicUsize::new(0));
    let killer = |answered, is_last_sent| {
        let (writes, created) = (AtomicUsize::new(0), created.clone());
        Arc::new(Killer { writes, answered, is_last_sent, dead: Notify::new(), created })
    };
    let mut object = job(&name, case.image, case.spec.clone());
    // The scheduler is of no use without the controllers' watches.
    object["spec"]["template"]["spec"]["nodeName"] = "n1".into();
    let api: Api<Job> = cluster.api();
    create_in_default(&api, object).await;

    let first = killer(answered, is_last_sent);
    let controllers = start(cluster, first.clone());
    let died = tokio::select! {
        () = first.dead.notified() => true,
        _ = cluster.wait::<Job>(&name, "finished", is_finished) => false,
    };
    controllers.shutdown().await;

    let controllers = start(cluster, killer(usize::MAX, false));
    let done = cluster.wait::<Job>(&name, "finished after all", is_finished).await;
    let tracked = |pods: &[Pod]| pods.iter().all(|pod| pod.metadata.finalizers.is_none());
    cluster.wait_list::<Pod>(&format!("app={name}"), "let go", tracked).await;
    tokio::time::timeout(PATIENCE, controllers.shutdown()).await.expect("in time");

    let what = format!("{name} of {} pods", created.load(SeqCst));
    assert_eq!(conditions(&done).last().map(String::as_str), Some(case.end), "{what}");
    let status = done.status.unwrap_or_default();
    let (succeeded, failed) = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
    assert_eq!(usize::try_from(succeeded + failed), Ok(created.load(SeqCst)), "each pod is counted once: {what}");
    assert_eq!(status.completed_indexes.unwrap_or_default(), case.completed, "{what}");
    if let Some(counts) = case.counts {
        assert_eq!((succeeded, failed), counts, "{what}");
    }
    api.delete(&name, &kube::api::DeleteParams::background()).await.expect("deleted");
    died
}

fn start(cluster: &Cluster, killer: Arc<Killer>) -> controllers::Controllers {
    let client = killer.client(cluster.client.clone());
    controllers::start(client, cluster.config.clone(), cluster.kinds.subscribe(), cluster.api.published().subscribe())
}
