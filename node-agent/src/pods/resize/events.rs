//! What is told of a resize as events: a pure comparison of what was shown before with what is shown now.

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

use super::in_progress;
use crate::pods::{recorder::EventType, spec, state::PodState};

/// The state of a pod's resizes, as far as events tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Reason, message and generation of what does not fit.
    pending: Option<(&'static str, String, Option<i64>)>,
    /// The generation that is being actuated.
    started: Option<i64>,
    is_in_progress: bool,
    error: Option<String>,
}

impl Shown {
    /// What there is to tell of the allocated `pod`.
    pub fn of(pod: &Pod, state: &PodState) -> Self {
        let pending = state.resize.pending.as_ref();
        Self {
            pending: pending.map(|pending| (pending.reason, pending.message.clone(), pending.generation)),
            started: state.resize.generation,
            is_in_progress: in_progress(pod, state),
            error: state.resize.error().map(str::to_owned),
        }
    }
}

/// The events that tell how `before` became `now`: type, reason and message. `desired` is the Pod as the API has it.
pub fn events(before: &Shown, now: &Shown, desired: &Pod, allocated: &Pod) -> Vec<(EventType, &'static str, String)> {
    let mut events = Vec::new();
    if let Some((reason, message, generation)) = &now.pending {
        let told = before.pending.as_ref().map(|(reason, _, generation)| (*reason, *generation));
        if told != Some((*reason, *generation)) {
            let event = if *reason == "Infeasible" { "ResizeInfeasible" } else { "ResizeDeferred" };
            let summary = summary(desired, *generation, Some(message));
            events.push((EventType::Warning, event, format!("Pod resize {reason}: {summary}")));
        }
    }
    let generation = now.started.or(before.started).or(allocated.metadata.generation);
    if let Some(started) = now.started.filter(|started| before.started != Some(*started)) {
        let summary = summary(allocated, Some(started), None);
        events.push((EventType::Normal, "ResizeStarted", format!("Pod resize started: {summary}")));
    }
    // Tried again and again, it fails with other numbers each time: that is no news.
    if let Some(error) = now.error.as_ref().filter(|_| before.error.is_none()) {
        let summary = summary(allocated, generation, Some(error));
        events.push((EventType::Warning, "ResizeError", format!("Pod resize error: {summary}")));
    }
    if before.is_in_progress && !now.is_in_progress {
        let summary = summary(allocated, generation, None);
        events.push((EventType::Normal, "ResizeCompleted", format!("Pod resize completed: {summary}")));
    }
    events
}

/// The resources of the pod's containers, in the kubelet's form.
fn summary(pod: &Pod, generation: Option<i64>, error: Option<&String>) -> String {
    let mut summary = json!({ "generation": generation.unwrap_or_default() });
    for (list, containers) in
        [("initContainers", entries(spec::init_containers(pod))), ("containers", entries(spec::app_containers(pod)))]
    {
        if !containers.is_empty() {
            summary[list] = containers.into();
        }
    }
    if let Some(error) = error {
        summary["error"] = json!(error);
    }
    summary.to_string()
}

fn entries<'a>(containers: impl Iterator<Item = &'a Container>) -> Vec<Value> {
    containers.map(|one| json!({ "name": one.name, "resources": one.resources.clone().unwrap_or_default() })).collect()
}
