//! Performs the actions of a plan: all I/O of the pod lifecycle. Decides only how an action is performed; every result
//! goes back to the worker.

mod hook;
mod hosts_file;
mod image;
mod remove;
mod resize;
mod sandbox;
mod start;
mod stop;
mod termination_message;
mod volumes;
mod write;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
pub use remove::{remove_orphan, remove_unknown_directories};
use tokio::sync::mpsc;
pub use volumes::follow as follow_objects;
pub use write::{write_status, write_taken_down};

use super::{
    Context,
    outcome::Outcome,
    plan::Action,
    spec,
    state::PodState,
    worker::{Input, send},
};

/// Performs `action`, planned when the pod's state was `state`.
pub async fn perform(
    context: &Context,
    pod: &Arc<Pod>,
    state: &PodState,
    action: Action,
    sender: &mpsc::Sender<Input>,
) {
    let outcome = match action {
        Action::MountVolumes => Outcome::VolumesMounted(volumes::mount(context, pod).await),
        Action::MakeSandbox { attempt } => sandbox::make(context, pod, attempt, sender).await,
        Action::AdoptSandbox { id } => sandbox::adopt(context, pod, id, &state.failed_adoptions).await,
        Action::GetImage { container, policy } => image::get(context, pod, container, policy).await,
        Action::CreateContainer { container, attempt, sandbox } => {
            start::create(context, pod, state, container, attempt, sandbox).await
        }
        Action::StartContainer { container, id } => start::start(context, pod, state, container, id, sender).await,
        Action::Resize { updates } => resize::resize(context, pod, &updates, sender).await,
        Action::StopContainer { container, id, grace, why, for_resize } => {
            if for_resize {
                resize::note_restart(context, pod, &id).await;
            }
            stop::stop(context, pod, state, container, id, grace, &why).await
        }
        Action::RemoveSandbox { id } => stop::remove_sandbox(context, pod, id).await,
        Action::RemoveContainers { ids } => {
            context.allocations.forget_containers(&uid(pod), &ids);
            return remove::remove_containers(context, &ids).await;
        }
        Action::End(_) => return,
        Action::Finish => remove::finish(context, pod, state).await,
    };
    send(sender, Input::Outcome(Box::new(outcome))).await;
}

/// How the runtime sees container `id` of `pod`; `None` where it does not answer (it is asked again when it is back).
pub async fn observe(context: &Context, pod: &Pod, id: &str) -> Option<Outcome> {
    match context.runtime.inspect(id).await {
        Ok(container) => {
            let message = termination_message::of(context, pod, container.as_ref()).await;
            Some(Outcome::Observed { id: id.to_owned(), container, message })
        }
        Err(error) => {
            tracing::warn!(id, error = error.chain(), "a container could not be looked at");
            None
        }
    }
}

fn uid(pod: &Pod) -> String {
    spec::pod_ref(pod).uid
}
