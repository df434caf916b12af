//! Writes the pod's status where it differs from what the API has: one write at a time, the latest status wins,
//! failures are tried again.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::task::{JoinError, JoinSet};

use super::{View, Worker};
use crate::{
    deadline::{AnswerError, timestamp_after},
    pods::{
        act,
        api_retry::wait_after,
        spec,
        state::{Finish, Instance},
        status::{self, ReportingNode},
    },
};

/// A start that takes longer (a postStart hook, a slow engine) holds no status back.
const LONGEST_HOLD: Duration = Duration::from_secs(10);

/// The writes of one pod's status.
#[derive(Default)]
pub(super) struct Report {
    writes: JoinSet<Result<Option<Pod>, AnswerError>>,
    failures: u32,
    not_before: Option<Timestamp>,
    /// Since when a status is held back for a start that is near.
    held_since: Option<Timestamp>,
}

impl Report {
    /// Whether no write is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.writes.is_empty()
    }

    /// The next write that ends; never where none is under way.
    pub(super) async fn ended(&mut self) -> Result<Result<Option<Pod>, AnswerError>, JoinError> {
        match self.writes.join_next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }
}

impl Worker {
    /// The status that the pod should have at `now`.
    fn desired(&self, now: Timestamp) -> PodStatus {
        let node = ReportingNode { node_ip: self.context.config.node_ip, scheme: self.context.runtime.scheme() };
        status::status(&self.pod, &self.state, node, now)
    }

    /// The API has the pod's status as it should be.
    pub(super) fn is_reported(&self, now: Timestamp) -> bool {
        let current = self.pod.status.clone().unwrap_or_default();
        self.report.is_idle() && status::patch("", &current, &self.desired(now)).is_none()
    }

    /// Begins to write the status where it differs from what the API has. Returns when to try again.
    pub(super) fn report(&mut self, now: Timestamp) -> Option<Timestamp> {
        let desired = self.desired(now);
        self.view.store(Arc::new(View {
            pod: self.desired.clone(),
            status: desired.clone(),
            state: self.state.clone(),
        }));
        if self.state.gone || self.state.finish != Finish::NotYet || !self.report.is_idle() {
            return None;
        }
        if let Some(at) = self.report.not_before.filter(|at| *at > now) {
            return Some(at);
        }
        let current = self.pod.status.clone().unwrap_or_default();
        let patch = status::patch(&spec::pod_ref(&self.pod).uid, &current, &desired)?;
        if self.start_is_near() && current.start_time.is_some() {
            let until = timestamp_after(*self.report.held_since.get_or_insert(now), LONGEST_HOLD);
            if now < until {
                return Some(until);
            }
        }
        self.report.held_since = None;
        let (context, pod) = (self.context.clone(), self.pod.clone());
        self.report.writes.spawn(async move { act::write_status(&context, &pod, patch).await });
        None
    }

    /// A container is about to start: its status goes out with what precedes it, in one write.
    fn start_is_near(&self) -> bool {
        let starting = |instance: &Instance| {
            matches!(
                instance,
                Instance::Creating | Instance::Created { .. } | Instance::Starting { .. } | Instance::PostStart { .. }
            )
        };
        self.pod.metadata.deletion_timestamp.is_none()
            && self.state.ended.is_none()
            && self.state.containers.values().any(|c| starting(&c.instance) && c.last.is_none())
    }

    /// Takes in what came of a write.
    pub(super) fn written(&mut self, written: Result<Option<Pod>, AnswerError>) {
        match written {
            Ok(pod) => {
                self.report.failures = 0;
                self.report.not_before = None;
                if let Some(pod) = pod {
                    self.replace_pod(Arc::new(pod));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the status was not written; it is tried again");
                self.report.failures = self.report.failures.saturating_add(1);
                self.report.not_before = Some(timestamp_after(Timestamp::now(), wait_after(self.report.failures)));
            }
        }
    }
}
