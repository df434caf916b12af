//! What becomes of requests while their events cannot be written: memory is bounded, and nothing that is waited for is
//! lost.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use http::Response;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Semaphore;

use super::{audit_to, begin, metrics};
use crate::{
    api::tests::{Server, config_map},
    audit::{
        Audit, AuditedRequest,
        backend::{AuditBackend, AuditWriteError},
        event::AuditEvent,
        memory::{HeldMemory, MemoryLimits},
        options::{AuditLogOptions, AuditLogTarget, AuditMode, BatchOptions},
    },
    status::Status,
};

/// A disk that does not answer until it is let.
struct Stuck {
    answers: Semaphore,
    written: Mutex<Vec<Bytes>>,
}

impl Stuck {
    fn new() -> Arc<Self> {
        Arc::new(Self { answers: Semaphore::new(0), written: Mutex::default() })
    }

    fn answer(&self) {
        self.answers.add_permits(1 << 20);
    }
}

#[async_trait::async_trait]
impl AuditBackend for Stuck {
    fn plugin(&self) -> &'static str {
        "test"
    }

    fn encode(&self, event: &AuditEvent) -> Bytes {
        event.to_json().into()
    }

    async fn write(&self, events: &[Bytes]) -> Result<(), AuditWriteError> {
        let _answer = self.answers.acquire().await.map_err(|_| AuditWriteError::ShutDown)?;
        self.written.lock().extend(events.iter().cloned());
        Ok(())
    }
}

const LAST_ALONE: &str = "- {level: Metadata, omitStages: [RequestReceived]}\n";

/// As a log is written that requests wait for.
fn blocking(mode: AuditMode) -> (AuditMode, BatchOptions) {
    let options = AuditLogOptions { mode, ..AuditLogOptions::new(AuditLogTarget::Stdout) };
    (mode, options.batch())
}

/// What becomes of a request that does not wait.
fn received_now(request: &AuditedRequest) -> Option<Result<(), Status>> {
    // A task that does much at once is to wait for a moment: not here.
    tokio::task::unconstrained(request.received(true)).now_or_never()
}

/// Begins requests whose clients go away at once, as long as none has to wait. Answers with how many.
fn begin_all(audit: &Audit) -> usize {
    let begun = |id: &usize| {
        let request = begin(audit, *id);
        received_now(&request).is_some_and(|received| received.is_ok())
    };
    (0..10_000).take_while(begun).count()
}

#[tokio::test]
async fn requests_wait_while_events_cannot_be_written_and_none_is_lost() {
    // All are one user's, who may have a mebibyte.
    let (stuck, limits) = (Stuck::new(), MemoryLimits { facts: 1 << 23, ..MemoryLimits::default() });
    let audit = audit_to(stuck.clone(), LAST_ALONE, blocking(AuditMode::BlockingStrict), limits);
    let begun = begin_all(&audit);
    assert!((100..1000).contains(&begun), "{begun} fit into a mebibyte");
    let waiting = begin(&audit, begun);
    let mut received = Box::pin(waiting.received(true));
    assert!(futures::poll!(received.as_mut()).is_pending());
    let lasting = begin(&audit, begun + 1).lasting(true);
    assert!(matches!(received_now(&lasting), Some(Ok(()))), "a watch has memory of its own");
    let given_up = begin(&audit, begun + 2);
    assert!(received_now(&given_up).is_none());
    drop(given_up);
    stuck.answer();
    received.await.unwrap();
    drop((waiting, lasting));
    audit.shut_down().await;
    // The watch has two; the one that was given up while it waited was not begun.
    assert_eq!(stuck.written.lock().len(), begun + 3);
    assert!(!metrics(&audit).contains("apiserver_audit_error_total{"));
}

#[tokio::test]
async fn a_heartbeat_does_not_wait_for_the_events_of_others() {
    let (stuck, limits) = (Stuck::new(), MemoryLimits { facts: 1 << 16, ..MemoryLimits::default() });
    let audit = audit_to(stuck.clone(), LAST_ALONE, blocking(AuditMode::BlockingStrict), limits);
    let begun = begin_all(&audit);
    let waiting = begin(&audit, begun);
    assert!(received_now(&waiting).is_none());
    let beat = begin(&audit, begun + 1).of_heartbeat(true);
    assert!(matches!(received_now(&beat), Some(Ok(()))), "it has memory of its own");
    stuck.answer();
    drop((waiting, beat));
    audit.shut_down().await;
}

#[tokio::test]
async fn a_request_for_which_no_memory_comes_is_refused() {
    let (stuck, patience) = (Stuck::new(), Duration::from_millis(1));
    let limits = MemoryLimits { facts: 1 << 19, patience, ..MemoryLimits::default() };
    let audit = audit_to(stuck.clone(), LAST_ALONE, blocking(AuditMode::Blocking), limits);
    let begun = begin_all(&audit);
    let refused = begin(&audit, begun).received(true).await.unwrap_err();
    assert_eq!((refused.code, refused.reason), (429, "TooManyRequests"));
    let stranger = begin(&audit, begun).received(false).await.unwrap_err();
    assert_eq!(stranger.code, 429);
    stuck.answer();
    audit.shut_down().await;
    assert_eq!(stuck.written.lock().len(), begun);
    assert!(metrics(&audit).contains("apiserver_audit_requests_rejected_total 2"));
}

#[tokio::test]
async fn a_queue_that_nobody_waits_for_is_bounded_by_bytes() {
    let limits = MemoryLimits { queue: 1 << 20, facts: 0, ..MemoryLimits::default() };
    let stuck = Stuck::new();
    let audit = audit_to(stuck.clone(), LAST_ALONE, (AuditMode::Batch, BatchOptions::default()), limits);
    for id in 0..4000 {
        let request = begin(&audit, id);
        received_now(&request).expect("it waits for nothing").unwrap();
        request.answered(Response::new(Body::empty())).now_or_never().expect("it waits for nothing");
    }
    stuck.answer();
    audit.shut_down().await;
    let written = stuck.written.lock();
    let bytes: usize = written.iter().map(Bytes::len).sum();
    assert!(((1 << 18)..(1 << 20)).contains(&bytes), "{bytes}");
    let lost = format!("apiserver_audit_error_total{{plugin=\"buffered\"}} {}", 4000 - written.len());
    assert!(metrics(&audit).contains(&lost), "{lost}");
}

#[tokio::test]
async fn a_list_is_recorded_within_the_memory_that_there_is() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        let mut map = config_map(name, json!({}));
        map["data"]["long"] = "x".repeat(100_000).into();
        assert_eq!(server.post(MAPS, map).await.code, 201);
    }
    let stuck = Stuck::new();
    stuck.answer();
    let limits = MemoryLimits { objects: 200_000, ..MemoryLimits::default() };
    let rules = "- {level: RequestResponse, omitStages: [RequestReceived]}\n";
    let audit = audit_to(stuck.clone(), rules, blocking(AuditMode::Blocking), limits);
    server.api.audit_through(audit.clone());

    let held = HeldMemory::default();
    assert!(audit.memory.grow_objects(&held, "another", 1));
    let refused = server.get(MAPS).await;
    assert_eq!((refused.reason(), &refused.headers["retry-after"]), ((429, "TooManyRequests"), &"1".parse().unwrap()));
    drop(held);
    let list = server.get(MAPS).await;
    assert_eq!((list.code, list.json["items"].as_array().unwrap().len()), (200, 3));
    audit.shut_down().await;
    let events: Vec<serde_json::Value> =
        stuck.written.lock().iter().map(|text| serde_json::from_slice(text).unwrap()).collect();
    assert_eq!(events.len(), 2);
    assert_eq!(
        (&events[0]["responseStatus"]["code"], &events[0]["responseObject"]["code"]),
        (&json!(429), &json!(429))
    );
    assert_eq!((&events[1]["responseStatus"]["code"], &events[1]["responseObject"]), (&json!(200), &list.json));
}
