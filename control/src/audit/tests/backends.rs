//! What backends get of events, and what becomes of requests whose events cannot be written.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use futures::FutureExt;
use http::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{begin, events, metrics, options};
use crate::{
    audit::{
        Audit,
        options::{AuditLogTarget, AuditMode, AuditOptions, AuditWebhookOptions, TruncateOptions},
    },
    status::Status,
    webhook::tests::{Answering, TestServer},
};

const ALL: &str = "- level: Metadata\n";

async fn start(options: &AuditOptions) -> Audit {
    Audit::start(options).await.unwrap().unwrap()
}

/// Begins, answers and ends a request.
async fn ask(audit: &Audit, id: usize) -> Result<(), Status> {
    let request = begin(audit, id);
    request.received(true).await?;
    request.answered(Response::new(Body::empty())).await;
    Ok(())
}

#[tokio::test]
async fn events_that_wait_are_written_at_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), ALL);
    options.log.as_mut().unwrap().mode = AuditMode::Batch;
    let audit = start(&options).await;
    for id in 0..100 {
        ask(&audit, id).await.unwrap();
    }
    audit.shut_down().await;
    let ids: Vec<String> = (0..100).flat_map(|id: usize| [id.to_string(), id.to_string()]).collect();
    let written = events(dir.path());
    assert_eq!(written.iter().map(|event| event["auditID"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    ask(&audit, 100).await.unwrap();
    let text = metrics(&audit);
    for line in [
        "apiserver_audit_event_total 202",
        "apiserver_audit_level_total{level=\"Metadata\"} 101",
        "apiserver_audit_level_total{level=\"None\"} 0",
        "apiserver_audit_error_total{plugin=\"buffered\"} 2",
        "apiserver_audit_requests_rejected_total 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn a_full_buffer_drops_events_and_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), ALL);
    let log = options.log.as_mut().unwrap();
    (log.mode, log.buffer_size) = (AuditMode::Batch, 2);
    let audit = start(&options).await;
    // The writer's task does not run while nothing here waits.
    for id in 0..3 {
        begin(&audit, id).received(true).now_or_never().unwrap().unwrap();
    }
    audit.shut_down().await;
    assert_eq!(events(dir.path()).len(), 2);
    // Each has two.
    assert!(metrics(&audit).contains("apiserver_audit_error_total{plugin=\"buffered\"} 4"));
}

/// A log on a device that is always full.
fn on_a_full_disk(dir: &Path, mode: AuditMode) -> AuditOptions {
    let mut options = options(dir, ALL);
    let log = options.log.as_mut().unwrap();
    (log.target, log.mode) = (AuditLogTarget::File("/dev/full".into()), mode);
    options
}

#[tokio::test]
async fn a_log_on_a_full_disk_stops_requests_only_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let audit = start(&on_a_full_disk(dir.path(), AuditMode::Blocking)).await;
    ask(&audit, 1).await.unwrap();
    assert!(metrics(&audit).contains("apiserver_audit_error_total{plugin=\"log\"} 2"));

    let audit = start(&on_a_full_disk(dir.path(), AuditMode::BlockingStrict)).await;
    let refused = ask(&audit, 1).await.unwrap_err();
    assert_eq!((refused.code, refused.reason), (500, "InternalError"));
    assert_eq!(refused.message, "Internal error occurred: failed to store audit event");
    let text = metrics(&audit);
    for line in ["apiserver_audit_requests_rejected_total 1", "apiserver_audit_error_total{plugin=\"log\"} 1"] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn a_request_that_its_client_gives_up_or_that_panics_has_a_last_event() {
    let dir = tempfile::tempdir().unwrap();
    let audit = start(&options(dir.path(), "- {level: Metadata, omitStages: [RequestReceived]}\n")).await;
    let begun = async |id, lasts| {
        let request = begin(&audit, id).lasting(lasts);
        request.received(true).await.unwrap();
        request
    };
    drop(begun(1, false).await);
    drop(begun(2, true).await);
    let request = begun(3, false).await;
    drop(begin(&audit, 4));
    let handled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _request = request;
        panic!("a handler that panics, as this test wants");
    }));
    assert!(handled.is_err());
    audit.shut_down().await;
    let mut written: Vec<(String, String, u64)> = events(dir.path())
        .iter()
        .map(|event| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&event["auditID"]), text(&event["stage"]), event["responseStatus"]["code"].as_u64().unwrap())
        })
        .collect();
    written.sort();
    let of = |id: &str, stage: &str, code| (id.to_owned(), stage.to_owned(), code);
    let expected = [
        of("1", "ResponseComplete", 200),
        of("2", "ResponseComplete", 200),
        of("2", "ResponseStarted", 200),
        of("3", "Panic", 500),
    ];
    assert_eq!(written, expected);
}

/// A server that fails the first `failures` times, its kubeconfig, and what it is told when it answered.
async fn collector(dir: &Path, failures: usize) -> (TestServer, PathBuf, mpsc::UnboundedReceiver<()>) {
    let (told, answered) = mpsc::unbounded_channel();
    let count = Arc::new(AtomicUsize::new(0));
    let answering: Answering = Arc::new(move |_, _| {
        let code = if count.fetch_add(1, Ordering::SeqCst) < failures { 500 } else { 200 };
        let told = told.clone();
        Box::pin(async move {
            if code == 200 {
                told.send(()).unwrap();
            }
            (code, json!({}))
        })
    });
    let server = TestServer::start(&["localhost"], answering).await;
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "s", "cluster": {"server": format!("https://localhost:{}/audit?by=test", server.port),
            "certificate-authority-data": server.bundle}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "c", "context": {"cluster": "s", "user": "u"}}]});
    let path = dir.join("webhook.kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    (server, path, answered)
}

fn to_webhook(dir: &Path, webhook: AuditWebhookOptions) -> AuditOptions {
    AuditOptions { log: None, webhook: Some(webhook), ..options(dir, ALL) }
}

#[tokio::test]
async fn a_webhook_that_fails_is_sent_the_events_again() {
    let dir = tempfile::tempdir().unwrap();
    let (server, kubeconfig, _answered) = collector(dir.path(), 1).await;
    let mut webhook = AuditWebhookOptions::new(kubeconfig);
    (webhook.mode, webhook.initial_backoff) = (AuditMode::BlockingStrict, Duration::from_millis(1));
    let audit = start(&to_webhook(dir.path(), webhook)).await;
    let request = begin(&audit, 7);
    request.received(true).await.unwrap();
    let requests = server.requests.lock().clone();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
    let (path, list) = &requests[1];
    assert_eq!((path.as_str(), &list["kind"]), ("/audit?by=test", &json!("EventList")));
    assert_eq!(list["apiVersion"], "audit.k8s.io/v1");
    let items = list["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["auditID"], items[0].get("kind")), (1, &json!("7"), None));
    audit.shut_down().await;
    assert!(!metrics(&audit).contains("apiserver_audit_error_total{"));
}

#[tokio::test]
async fn a_webhook_gets_events_together() {
    let dir = tempfile::tempdir().unwrap();
    let (server, kubeconfig, mut answered) = collector(dir.path(), 0).await;
    let mut webhook = AuditWebhookOptions::new(kubeconfig);
    webhook.batch.max_size = 4;
    let audit = start(&to_webhook(dir.path(), webhook)).await;
    for id in 0..3 {
        ask(&audit, id).await.unwrap();
    }
    answered.recv().await.unwrap();
    audit.shut_down().await;
    let sizes: Vec<usize> =
        server.bodies("/audit").iter().map(|list| list["items"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [4, 2]);
}

/// More lists than are sent at a time wait to be sent again, and others are sent meanwhile.
#[tokio::test]
async fn lists_that_wait_to_be_sent_again_hold_up_no_others() {
    const LISTS: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let (server, kubeconfig, _answered) = collector(dir.path(), LISTS).await;
    let mut webhook = AuditWebhookOptions::new(kubeconfig);
    webhook.initial_backoff = Duration::from_secs(3600);
    (webhook.batch.max_size, webhook.batch.throttle, webhook.batch.buffer_size) = (1, None, 2 * LISTS);
    let audit = start(&to_webhook(dir.path(), webhook)).await;
    for id in 0..LISTS / 2 {
        ask(&audit, id).await.unwrap();
    }
    let sent = async {
        while server.requests.lock().len() < LISTS {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sent).await.expect("each is sent once");
    audit.shut_down().await;
    assert_eq!(server.requests.lock().len(), 2 * LISTS);
    assert!(!metrics(&audit).contains("apiserver_audit_error_total{"), "none is lost");
}

#[tokio::test]
async fn events_that_are_too_large_are_cut_or_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), ALL);
    let log = options.log.as_mut().unwrap();
    log.truncate = Some(TruncateOptions { max_event_size: 10, max_batch_size: 10 });
    log.mode = AuditMode::BlockingStrict;
    let audit = start(&options).await;
    ask(&audit, 1).await.expect("a request goes on without it");
    audit.shut_down().await;
    assert!(events(dir.path()).is_empty());
    assert!(metrics(&audit).contains("apiserver_audit_error_total{plugin=\"truncate\"} 2"));
}

#[tokio::test]
async fn a_log_that_cannot_be_replaced_loses_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), ALL);
    let path = dir.path().join("logs").join("audit.log");
    let log = options.log.as_mut().unwrap();
    (log.target, log.mode, log.max_size_mib) = (AuditLogTarget::File(path.clone()), AuditMode::BlockingStrict, 1);
    let audit = start(&options).await;
    // The next event is too much, and the directory has another name.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    let moved = dir.path().join("moved");
    std::fs::rename(path.parent().unwrap(), &moved).unwrap();
    std::fs::write(path.parent().unwrap(), "").unwrap();
    ask(&audit, 1).await.unwrap();
    let text = metrics(&audit);
    assert!(text.contains("fairlead_audit_log_rotation_failures_total 1"), "{text}");
    assert!(!text.contains("apiserver_audit_error_total{"), "{text}");
    let written = std::fs::read_to_string(moved.join("audit.log")).unwrap();
    assert_eq!(written.matches("\"auditID\":\"1\"").count(), 2);
}

/// Its text is made on another thread, and its requests wait for it or not.
#[tokio::test]
async fn large_events_are_written_whole_and_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let audit = start(&options(dir.path(), "- level: Request\n")).await;
    let long = |id: usize| json!({"data": id.to_string().repeat(300_000)});
    for id in 1..4 {
        let request = begin(&audit, id);
        request.received(true).await.unwrap();
        request.scope(async { crate::audit::current::request_object(&long(id)) }).await;
        if id < 3 {
            request.answered(Response::new(Body::empty())).await;
        }
    }
    audit.shut_down().await;
    let written = events(dir.path());
    let ids: Vec<&str> = written.iter().map(|event| event["auditID"].as_str().unwrap()).collect();
    assert_eq!(ids, ["1", "1", "2", "2", "3", "3"]);
    for (id, event) in [(1, &written[1]), (2, &written[3]), (3, &written[5])] {
        assert!(event["requestObject"] == long(id) && event["kind"] == "Event");
    }
    assert!(metrics(&audit).contains("apiserver_audit_event_total 6"));
}

#[tokio::test]
async fn what_cannot_be_set_up_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let webhook = AuditWebhookOptions::new(dir.path().join("none"));
    let error = Audit::start(&to_webhook(dir.path(), webhook)).await.err().unwrap();
    assert!(error.to_string().ends_with("/none"), "{error}");
    let nothing = AuditOptions { log: None, ..options(dir.path(), ALL) };
    assert!(Audit::start(&nothing).await.unwrap().is_none());
    assert!(Audit::start(&AuditOptions::default()).await.unwrap().is_none());
}
