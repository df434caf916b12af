//! `/livez`, `/readyz` and `/healthz` as Kubernetes' components serve them: 200 and `ok`, or 500 and the checks that
//! fail.
//!
//! `?verbose` lists all checks, `?exclude=NAME` leaves one out, `/readyz/NAME` asks for one.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};

use super::{CheckResult, Health, Severity};

/// How much a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Why a check fails.
    Reasons,
    /// Which checks fail, but not why: for callers without a certificate.
    Names,
}

/// The endpoints.
pub fn router(health: Arc<Health>, detail: Detail) -> Router {
    let mut router = Router::new();
    for (endpoint, severity) in [("livez", Severity::Dead), ("healthz", Severity::Dead), ("readyz", Severity::Warning)]
    {
        let served = Served { health: health.clone(), detail, endpoint, severity };
        let routes = Router::new()
            .route(&format!("/{endpoint}"), get(all))
            .route(&format!("/{endpoint}/{{check}}"), get(one))
            .with_state(served);
        router = router.merge(routes);
    }
    router
}

#[derive(Clone)]
struct Served {
    health: Arc<Health>,
    detail: Detail,
    endpoint: &'static str,
    severity: Severity,
}

async fn all(State(served): State<Served>, Query(query): Query<Vec<(String, String)>>) -> Response {
    let is_verbose = query.iter().any(|(name, _)| name == "verbose");
    let excluded = |name: &str| query.iter().any(|(key, value)| key == "exclude" && value == name);
    let mut results = served.health.results(served.severity);
    results.retain(|result| !excluded(&result.name));
    answer(served.endpoint, &results, is_verbose, served.detail)
}

async fn one(State(served): State<Served>, Path(check): Path<String>) -> Response {
    let mut results = served.health.results(served.severity);
    results.retain(|result| result.name == check);
    if results.is_empty() {
        return (StatusCode::NOT_FOUND, format!("no check {check:?} of {}\n", served.endpoint)).into_response();
    }
    let warns = results.iter().any(|result| result.failure.is_some());
    answer(served.endpoint, &results, warns, served.detail)
}

fn answer(endpoint: &str, results: &[CheckResult], is_verbose: bool, detail: Detail) -> Response {
    let fails = results.iter().any(|result| result.failure.is_some() && result.severity > Severity::Warning);
    if !fails && !is_verbose {
        return "ok".into_response();
    }
    let mut text: String = results.iter().map(|result| line(result, detail)).collect();
    let verdict = if fails { "failed" } else { "passed" };
    // Writing to a String cannot fail.
    writeln!(text, "{endpoint} check {verdict}").expect("a String takes all text");
    let code = if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    (code, text).into_response()
}

fn line(result: &CheckResult, detail: Detail) -> String {
    let restarts = match result.restarts {
        0 => String::new(),
        restarts => format!(" (started again {restarts} times)"),
    };
    let Some(reason) = &result.failure else { return format!("[+]{} ok{restarts}\n", result.name) };
    let (mark, verdict) = if result.severity == Severity::Warning { ("!", "warning") } else { ("-", "failed") };
    let reason = if detail == Detail::Names { "reason withheld" } else { reason };
    format!("[{mark}]{} {verdict}: {reason}{restarts}\n", result.name)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::supervise::Supervisor;

    async fn ask(health: &Arc<Health>, detail: Detail, path: &str) -> (u16, String) {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let response = router(health.clone(), detail).oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    fn health(docker: &Arc<AtomicBool>) -> Arc<Health> {
        let docker = docker.clone();
        let runtime = move || (!docker.load(Ordering::Relaxed)).then(|| "Docker is away".to_owned());
        let health = Health::default().check("datapath", Severity::Dead, || None);
        Arc::new(health.check("runtime", Severity::NotReady, runtime))
    }

    #[tokio::test]
    async fn a_failing_check_of_the_node_fails_readyz_and_not_livez() {
        let docker = Arc::new(AtomicBool::new(true));
        let health = health(&docker);
        for path in ["/livez", "/readyz", "/healthz", "/readyz/runtime"] {
            assert_eq!(ask(&health, Detail::Reasons, path).await, (200, "ok".into()), "{path}");
        }
        docker.store(false, Ordering::Relaxed);
        let failed = "[+]datapath ok\n[-]runtime failed: Docker is away\nreadyz check failed\n";
        assert_eq!(ask(&health, Detail::Reasons, "/readyz").await, (500, failed.into()));
        assert_eq!(ask(&health, Detail::Reasons, "/livez").await, (200, "ok".into()));
        assert_eq!(ask(&health, Detail::Reasons, "/readyz?exclude=runtime").await, (200, "ok".into()));
        assert_eq!(ask(&health, Detail::Reasons, "/readyz/runtime").await.0, 500);
        assert_eq!(ask(&health, Detail::Reasons, "/readyz/nothing").await.0, 404);
        let (_, text) = ask(&health, Detail::Names, "/readyz").await;
        assert!(text.contains("reason withheld") && !text.contains("Docker"), "{text}");
    }

    #[tokio::test]
    async fn a_warning_is_listed_and_fails_nothing() {
        let health = Health::default().check("network", Severity::NotReady, || None);
        let health = Arc::new(health.check("network-warnings", Severity::Warning, || Some("no route to b".to_owned())));
        for path in ["/livez", "/readyz", "/healthz"] {
            assert_eq!(ask(&health, Detail::Reasons, path).await, (200, "ok".into()), "{path}");
        }
        let listed = "[+]network ok\n[!]network-warnings warning: no route to b\nreadyz check passed\n";
        assert_eq!(ask(&health, Detail::Reasons, "/readyz?verbose").await, (200, listed.into()));
        let one = "[!]network-warnings warning: reason withheld\nreadyz check passed\n";
        assert_eq!(ask(&health, Detail::Names, "/readyz/network-warnings").await, (200, one.into()));
    }

    #[tokio::test]
    async fn tasks_show_in_readyz_with_how_often_they_were_started_again() {
        let supervisor = Supervisor::new();
        let task = supervisor.track("heartbeat");
        let health = Arc::new(Health::default().tasks_of(&supervisor));
        task.failed("it panicked".into(), std::time::Duration::ZERO);
        let failed = "[-]task-heartbeat failed: it panicked\nreadyz check failed\n";
        assert_eq!(ask(&health, Detail::Reasons, "/readyz").await, (500, failed.into()));
        task.restarted();
        let passed = "[+]task-heartbeat ok (started again 1 times)\nreadyz check passed\n";
        assert_eq!(ask(&health, Detail::Reasons, "/readyz?verbose").await, (200, passed.into()));
    }
}
