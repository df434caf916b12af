//! `/livez`, `/readyz` and `/healthz` in Kubernetes' text form, and `/version`.
//!
//! `?verbose` lists the checks, `?exclude=NAME` leaves one out, and `/readyz/NAME` asks one alone.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::Status;
use crate::health::{Health, HealthEndpoint};

/// The Kubernetes release whose API this is: clients choose what they send by it.
const KUBERNETES_MAJOR: &str = "1";
const KUBERNETES_MINOR: &str = "35";
/// Clients of that version are still served as they were. Source: `DefaultKubeBinaryVersion` less one minor version.
const KUBERNETES_MIN_COMPATIBILITY_MINOR: &str = "34";

/// Answers a path of `endpoint`: `rest` is what follows it, without the slash; `query` is the URL's.
pub fn answer(health: &Health, endpoint: &str, rest: &[&str], query: &str) -> Result<Response, Status> {
    let which = match endpoint {
        "livez" => HealthEndpoint::Live,
        "readyz" => HealthEndpoint::Ready,
        _ => HealthEndpoint::Healthy,
    };
    match rest {
        [] => Ok(all(health, which, endpoint, query)),
        [name] => one(health, which, name),
        _ => Err(Status::unknown_path()),
    }
}

fn all(health: &Health, which: HealthEndpoint, endpoint: &str, query: &str) -> Response {
    let parameters: Vec<(&str, &str)> = query.split('&').map(|p| p.split_once('=').unwrap_or((p, ""))).collect();
    let verbose = parameters.iter().any(|(name, _)| *name == "verbose");
    let excluded: Vec<&str> = parameters.iter().filter(|(name, _)| *name == "exclude").map(|(_, v)| *v).collect();
    let checks = health.ask(which, |name| excluded.contains(&name));
    let failed = checks.iter().any(|check| check.outcome.is_err());
    let mut text = String::new();
    for check in &checks {
        text += &match &check.outcome {
            Ok(remark) if remark.is_empty() => format!("[+]{} ok\n", check.name),
            Ok(remark) => format!("[+]{} ok: {remark}\n", check.name),
            Err(reason) => format!("[-]{} failed: {reason}\n", check.name),
        };
    }
    let names = health.names(which);
    for name in excluded.iter().filter(|name| names.contains(name)) {
        text += &format!("[+]{name} excluded: ok\n");
    }
    let unknown: Vec<String> = excluded.iter().filter(|e| !names.contains(e)).map(|e| format!("{e:?}")).collect();
    if !unknown.is_empty() {
        text += &format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(", "));
    }
    match (failed, verbose) {
        (true, _) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{endpoint} check failed\n")),
        (false, true) => plain(StatusCode::OK, format!("{text}{endpoint} check passed\n")),
        (false, false) => plain(StatusCode::OK, "ok".to_owned()),
    }
}

fn one(health: &Health, which: HealthEndpoint, name: &str) -> Result<Response, Status> {
    let asked = health.ask(which, |other| other != name).pop().ok_or_else(Status::unknown_path)?;
    Ok(match asked.outcome {
        Ok(_) => plain(StatusCode::OK, "ok".to_owned()),
        Err(reason) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {reason}\n")),
    })
}

fn plain(code: StatusCode, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private")),
    ];
    (code, headers, text).into_response()
}

/// `GET /version`
pub fn version() -> Value {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": KUBERNETES_MAJOR,
        "minor": KUBERNETES_MINOR,
        // What it behaves as, and the oldest version whose behaviour its clients may still expect.
        "emulationMajor": KUBERNETES_MAJOR,
        "emulationMinor": KUBERNETES_MINOR,
        "minCompatibilityMajor": KUBERNETES_MAJOR,
        "minCompatibilityMinor": KUBERNETES_MIN_COMPATIBILITY_MINOR,
        "gitVersion": format!("v{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}.0+fairlead-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{arch}", std::env::consts::OS),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use http_body_util::BodyExt;

    use super::*;
    use crate::health::CheckFailure;

    async fn ask(health: &Health, endpoint: &str, rest: &[&str], query: &str) -> (u16, String) {
        match answer(health, endpoint, rest, query) {
            Ok(response) => {
                let code = response.status().as_u16();
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                (code, String::from_utf8(bytes.to_vec()).unwrap())
            }
            Err(status) => (status.code, status.message),
        }
    }

    #[tokio::test]
    async fn checks_are_told_as_kubernetes_tells_them() {
        let health = Health::default();
        let broken = Arc::new(AtomicBool::new(false));
        let is_broken = broken.clone();
        health.add("store", &[HealthEndpoint::Ready], move || match is_broken.load(Ordering::Relaxed) {
            true => Err(CheckFailure::new("the last commit failed")),
            false => Ok("2 of them".to_owned()),
        });
        assert_eq!(ask(&health, "readyz", &[], "").await, (200, "ok".to_owned()));
        let verbose = "[+]ping ok\n[+]log ok\n[+]shutdown ok\n[+]store ok: 2 of them\nreadyz check passed\n";
        assert_eq!(ask(&health, "readyz", &[], "verbose").await, (200, verbose.to_owned()));
        broken.store(true, Ordering::Relaxed);
        let failed =
            "[+]ping ok\n[+]log ok\n[+]shutdown ok\n[-]store failed: the last commit failed\nreadyz check failed\n";
        assert_eq!(ask(&health, "readyz", &[], "").await, (500, failed.to_owned()));
        let one = (500, "internal server error: the last commit failed\n".to_owned());
        assert_eq!(ask(&health, "readyz", &["store"], "").await, one);
        assert_eq!(ask(&health, "readyz", &["ping"], "").await, (200, "ok".to_owned()));
        assert_eq!(ask(&health, "readyz", &["none"], "").await.0, 404);
        assert_eq!(ask(&health, "livez", &[], "").await, (200, "ok".to_owned()));
        let without = "[+]ping ok\n[+]log ok\n[+]shutdown ok\n[+]store excluded: ok\n\
            warn: some health checks cannot be excluded: no matches for \"other\"\nreadyz check passed\n";
        let query = "verbose&exclude=store&exclude=other";
        assert_eq!(ask(&health, "readyz", &[], query).await, (200, without.to_owned()));
        health.shut_down();
        assert_eq!(ask(&health, "readyz", &["shutdown"], "").await.0, 500);
        assert_eq!(ask(&health, "livez", &[], "").await.0, 200, "it ends by itself");
    }
}
