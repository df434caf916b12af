//! `/metrics` and the health paths, as Prometheus and an operator ask for them.

use futures::StreamExt;
use serde_json::json;

use super::{Server, config_map, watches::frames_of};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The value of the one sample whose line starts so.
async fn value(server: &Server, start: &str) -> f64 {
    let text = server.get("/metrics").await.text;
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(start)).collect();
    assert_eq!(lines.len(), 1, "{start}: {lines:?}");
    lines[0].rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn requests_and_watch_events_are_counted() {
    let server = Server::start().await;
    let created = r#"apiserver_request_total{component="apiserver",verb="CREATE",group="",resource="configmaps""#;
    let mut frames = frames_of(&server, &format!("{MAPS}?watch=true")).await;
    assert_eq!(server.post(MAPS, config_map("a", json!({}))).await.code, 201);
    frames.next().await.unwrap();
    assert_eq!(value(&server, created).await, 1.0);
    let sent = r#"apiserver_watch_events_total{group="",version="v1",kind="ConfigMap"}"#;
    assert_eq!(value(&server, sent).await, 1.0);
    assert_eq!(value(&server, "apiserver_longrunning_requests{").await, 1.0);
    drop(frames);
    assert_eq!(value(&server, "apiserver_longrunning_requests{").await, 0.0);
    // The request for the metrics itself.
    assert_eq!(value(&server, r#"apiserver_current_inflight_requests{request_kind="readOnly"}"#).await, 1.0);
    assert_eq!(server.get("/apis/none.io/v1/things").await.code, 404);
    assert_eq!(server.get("/apis/other.io/v1/others").await.code, 404);
    let unknown = r#"apiserver_request_total{component="apiserver",verb="LIST",group="",resource="","#;
    assert_eq!(value(&server, unknown).await, 2.0);
    assert!(value(&server, r#"fairlead_store_transactions_total{result="committed"}"#).await >= 2.0);
    assert!(value(&server, "etcd_disk_wal_fsync_duration_seconds_count").await >= 2.0);
    let answer = server.get("/metrics").await;
    assert_eq!(answer.headers["content-type"], crate::metrics::CONTENT_TYPE);
}

#[tokio::test]
async fn health_is_told_by_named_checks() {
    let server = Server::start().await;
    for path in ["/livez", "/readyz", "/healthz", "/readyz/ping"] {
        let answer = server.get(path).await;
        assert_eq!((answer.code, answer.text.as_str()), (200, "ok"), "{path}");
    }
    server.api.health().shut_down();
    let answer = server.get("/readyz").await;
    assert_eq!(answer.code, 500);
    assert!(answer.text.contains("[-]shutdown failed: the service is shutting down\n"), "{}", answer.text);
    assert!(answer.text.ends_with("readyz check failed\n"), "{}", answer.text);
    assert_eq!(
        server.get("/livez?verbose").await.text,
        "[+]ping ok\n[+]log ok\n[+]store-open ok\nlivez check passed\n"
    );
    assert_eq!(server.get("/readyz/none").await.code, 404);
}
