//! Named checks behind `/livez`, `/readyz` and `/healthz`, each of which can fail.
//!
//! | check | fails when | live | ready | healthy |
//! |---|---|---|---|---|
//! | `ping` | never: an answer is the proof | yes | yes | yes |
//! | `log` | the heartbeat, which logs, is stuck | yes | yes | yes |
//! | `shutdown` | the service is being stopped | | yes | |
//! | `store-open` | the store takes no writes until a restart: a failed commit closed it for good | yes | | |
//! | `store` | the last commit failed, or is stuck | | yes | yes |
//! | others | whoever [added](Health::add) them says so | | | |
//!
//! A service that is not live should be restarted; one that is not ready should not be asked. The reasons are shown to
//! everyone who reaches the port: a check says no path, no address and nothing that is stored.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How long the heartbeat may be late before it counts as stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Time between two beats.
pub const BEAT: Duration = Duration::from_secs(10);

/// A check's answer: what is worth knowing although all is well (usually nothing), or why it fails.
pub type CheckResult = Result<String, CheckFailure>;

/// Why a check fails. Shown to everyone who reaches the port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CheckFailure(String);

impl CheckFailure {
    /// With a reason that names no path, no address and nothing that is stored.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// The paths under which checks are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthEndpoint {
    /// `/livez`: would a restart help?
    Live,
    /// `/readyz`: can it be asked?
    Ready,
    /// `/healthz`: is all well?
    Healthy,
}

/// All checks. Cheap to clone; clones share the checks.
#[derive(Clone, Debug)]
pub struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    checks: Mutex<Vec<HealthCheck>>,
    last_beat: Mutex<Instant>,
    shutting_down: AtomicBool,
}

#[derive(Clone)]
struct HealthCheck {
    name: &'static str,
    endpoints: &'static [HealthEndpoint],
    run: Arc<dyn Fn() -> CheckResult + Send + Sync>,
}

/// A check that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The check's name.
    pub name: &'static str,
    /// What it said.
    pub outcome: CheckResult,
}

impl Default for Health {
    fn default() -> Self {
        let inner = Arc::new(Inner {
            checks: Mutex::default(),
            last_beat: Mutex::new(Instant::now()),
            shutting_down: AtomicBool::new(false),
        });
        let health = Self { inner: inner.clone() };
        let all = &[HealthEndpoint::Live, HealthEndpoint::Ready, HealthEndpoint::Healthy];
        health.add("ping", all, || Ok(String::new()));
        // Weak, or the checks would keep themselves alive.
        let inner = Arc::downgrade(&inner);
        health.add("log", all, move || match inner.upgrade().map(|inner| inner.last_beat.lock().elapsed()) {
            Some(late) if late > BEAT.saturating_add(STUCK) => {
                Err(CheckFailure(format!("the heartbeat has been stuck for {} s", late.as_secs())))
            }
            _ => Ok(String::new()),
        });
        let inner = Arc::downgrade(&health.inner);
        let stopping = move || inner.upgrade().is_none_or(|inner| inner.shutting_down.load(Ordering::Relaxed));
        health.add("shutdown", &[HealthEndpoint::Ready], move || match stopping() {
            true => Err(CheckFailure::new("the service is shutting down")),
            false => Ok(String::new()),
        });
        health
    }
}

impl Health {
    /// Adds a check, asked under `endpoints`. It answers at once, without I/O.
    pub fn add(
        &self,
        name: &'static str,
        endpoints: &'static [HealthEndpoint],
        run: impl Fn() -> CheckResult + Send + Sync + 'static,
    ) {
        self.inner.checks.lock().push(HealthCheck { name, endpoints, run: Arc::new(run) });
    }

    /// Records that tasks run and that logging does not block. To be called every [`BEAT`].
    pub fn beat(&self) {
        tracing::debug!("heartbeat");
        *self.inner.last_beat.lock() = Instant::now();
    }

    /// Says that the service stops: it is not ready from now on.
    pub fn shut_down(&self) {
        self.inner.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Asks the checks of `endpoint`, in the order they were added, but those whose name is `excluded`.
    pub fn ask(&self, endpoint: HealthEndpoint, excluded: impl Fn(&str) -> bool) -> Vec<Checked> {
        // Asked without the lock: a check may take another.
        let mut checks = self.inner.checks.lock().clone();
        checks.retain(|check| check.endpoints.contains(&endpoint) && !excluded(check.name));
        checks.into_iter().map(|check| Checked { name: check.name, outcome: (check.run)() }).collect()
    }

    /// Asks the check of this name, whatever endpoints it has.
    pub fn ask_one(&self, name: &str) -> Option<CheckResult> {
        let check = self.inner.checks.lock().iter().find(|check| check.name == name).cloned();
        check.map(|check| (check.run)())
    }

    /// The names of the checks of `endpoint`.
    pub fn names(&self, endpoint: HealthEndpoint) -> Vec<&'static str> {
        let checks = self.inner.checks.lock();
        checks.iter().filter(|check| check.endpoints.contains(&endpoint)).map(|check| check.name).collect()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.checks.lock().iter().map(|check| check.name)).finish()
    }
}
