//! Whether the agent works: named checks that can fail, and where they are asked.
//!
//! - `endpoints.rs`: `/livez`, `/readyz` and `/healthz` over the checks, in Kubernetes' form.
//! - `metrics.rs`: `/metrics`, in Prometheus' form.
//! - `probes.rs`: asks the container runtime and the DNS server whether they answer.
//! - `monitor.rs`: measures what the Node object's conditions say.
//!
//! Nothing here repairs anything: tasks are restarted by [`crate::supervise`], and each part retries its own work.

pub mod endpoints;
pub mod metrics;
pub mod monitor;
pub mod probes;

use parking_lot::RwLock;

use crate::supervise::Supervisor;

/// The checks of one agent.
#[derive(Default)]
pub struct Health {
    checks: Vec<Check>,
    supervisors: RwLock<Vec<Supervisor>>,
}

/// What a failing check means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A part of the node's work is not done; the node goes on to take pods. No endpoint fails: `/readyz?verbose` says
    /// so.
    Warning,
    /// The node cannot do all of its work now; what runs goes on. Only `/readyz` fails.
    NotReady,
    /// The agent itself is broken and should be restarted: `/livez` and `/healthz` fail too.
    Dead,
}

/// Returns why the check fails now; `None` while it passes.
type Probe = Box<dyn Fn() -> Option<String> + Send + Sync>;

struct Check {
    name: &'static str,
    severity: Severity,
    probe: Probe,
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// Such as `datapath`, or `task-heartbeat`.
    pub name: String,
    /// Whether its failure makes the node unready.
    pub severity: Severity,
    /// Why it fails; `None` where all is well.
    pub failure: Option<String>,
    /// How often the task of this check was restarted.
    pub restarts: u64,
}

impl Health {
    /// Adds a check; `probe` must return at once.
    pub fn check(
        mut self,
        name: &'static str,
        severity: Severity,
        probe: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push(Check { name, severity, probe: Box::new(probe) });
        self
    }

    /// Adds a check for each task of `supervisor`, also of those that it is given later.
    pub fn tasks_of(self, supervisor: &Supervisor) -> Self {
        self.add_tasks_of(supervisor);
        self
    }

    /// The same, of a part that starts while the checks are served already.
    pub fn add_tasks_of(&self, supervisor: &Supervisor) {
        self.supervisors.write().push(supervisor.clone());
    }

    /// Runs every check that means at least `severity`: the named ones in their order, then the tasks.
    pub fn results(&self, severity: Severity) -> Vec<CheckResult> {
        let named = self.checks.iter().filter(|check| check.severity >= severity).map(|check| CheckResult {
            name: check.name.to_owned(),
            severity: check.severity,
            failure: (check.probe)(),
            restarts: 0,
        });
        // A task that waits for its restart makes the node not ready; the agent itself is alive.
        let supervisors = self.supervisors.read();
        let tasks = supervisors.iter().filter(|_| severity <= Severity::NotReady).flat_map(Supervisor::tasks);
        let tasks = tasks.map(|task| CheckResult {
            name: format!("task-{}", task.name),
            severity: Severity::NotReady,
            failure: task.failure,
            restarts: task.restarts,
        });
        named.chain(tasks).collect()
    }
}
