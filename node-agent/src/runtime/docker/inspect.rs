//! Docker's answers as the runtime's types: pure.

use std::collections::HashSet;

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum, ImageInspect,
    ImageSummary,
};
use jiff::Timestamp;

use crate::runtime::{Container, ContainerOwner, Exit, Image, ImageUser, LocalImage, State, Summary};

/// `None` for a container that is not an agent's.
pub(super) fn container(answer: ContainerInspectResponse) -> Option<Container> {
    let owner = ContainerOwner::from_labels(answer.config.as_ref()?.labels.as_ref()?)?;
    let state = answer.state?;
    let started_at = time(state.started_at.as_deref());
    let state = match state.status? {
        // Docker calls a container that could not be started "created" too, but with the error and an exit code.
        ContainerStateStatusEnum::CREATED if state.error.as_deref().is_none_or(str::is_empty) => State::Created,
        ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED => State::Running {
            started_at: started_at.unwrap_or(Timestamp::UNIX_EPOCH),
            pid: u32::try_from(state.pid.unwrap_or_default()).unwrap_or_default(),
        },
        _ => State::Exited(Exit {
            code: i32::try_from(state.exit_code.unwrap_or_default()).unwrap_or(-1),
            started_at,
            finished_at: time(state.finished_at.as_deref()).or(started_at).unwrap_or_else(Timestamp::now),
            oom_killed: state.oom_killed.unwrap_or_default(),
            error: state.error.unwrap_or_default(),
        }),
    };
    Some(Container { id: answer.id?, owner, image_id: answer.image.unwrap_or_default(), state })
}

/// `None` for a container that is not an agent's.
pub(super) fn summary(answer: ContainerSummary) -> Option<Summary> {
    use ContainerSummaryStateEnum as State;
    let owner = ContainerOwner::from_labels(answer.labels.as_ref()?)?;
    let is_running = matches!(answer.state, Some(State::RUNNING | State::PAUSED | State::RESTARTING | State::STOPPING));
    Some(Summary { id: answer.id?, owner, is_running })
}

/// An image that exists.
pub(super) fn image(reference: &str, answer: ImageInspect) -> Image {
    let digests = answer.repo_digests.unwrap_or_default();
    let repository = repository(reference);
    let digest = digests.iter().find(|digest| digest.split('@').next() == Some(repository)).or(digests.first());
    let engine_id = answer.id.unwrap_or_default();
    let id = match digest {
        Some(digest) => format!("docker-pullable://{digest}"),
        None => format!("docker://{engine_id}"),
    };
    let user = answer.config.and_then(|config| config.user).unwrap_or_default();
    Image { id, user: ImageUser::parse(&user), engine_id }
}

/// An image of a list; `used` are those that containers are made from.
pub(super) fn local_image(answer: ImageSummary, used: &HashSet<String>) -> LocalImage {
    LocalImage {
        is_used: used.contains(&answer.id),
        id: answer.id,
        // Docker's name for one that has none.
        tags: answer.repo_tags.into_iter().filter(|tag| tag != "<none>:<none>").collect(),
        size_bytes: u64::try_from(answer.size).unwrap_or_default(),
    }
}

/// The name without its tag and digest, in the short form that Docker shows: `docker.io/library/` is left out.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

/// Docker writes year 1 for "never".
fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse::<Timestamp>().ok().filter(|time| *time > Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_the_reference_without_tag_digest_and_default_registry() {
        assert_eq!(repository("hello:v1"), "hello");
        assert_eq!(repository("docker.io/library/hello"), "hello");
        assert_eq!(repository("localhost:5000/a/b:1"), "localhost:5000/a/b");
        assert_eq!(repository("localhost:5000/a@sha256:12"), "localhost:5000/a");
    }

    #[test]
    fn year_one_is_never() {
        assert_eq!(time(Some("0001-01-01T00:00:00Z")), None);
        assert!(time(Some("2026-11-21T08:00:00.123456789Z")).is_some());
    }
}
