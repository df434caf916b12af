//! Finds or pulls a container's image, by its pull policy.

use k8s_openapi::api::core::v1::Pod;

use crate::{
    pods::{
        Context,
        image::PullPolicy,
        outcome::{Failure, Outcome},
        pull_secret,
        recorder::EventType,
        spec,
    },
    runtime::{self, Credentials, Image},
};

/// Gets the image of `container`: the local one, or from its registry.
pub async fn get(context: &Context, pod: &Pod, container: String, policy: PullPolicy) -> Outcome {
    let image = spec::any_container(pod, &container).and_then(|container| container.image.clone()).unwrap_or_default();
    let result = resolve(context, pod, &container, &image, policy).await;
    if let Err(failure) = &result {
        let message = match failure.reason {
            "ErrImagePull" => format!("Failed to pull image {image:?}: {}", failure.message),
            _ => failure.message.clone(),
        };
        context.recorder.record(pod, Some(&container), EventType::Warning, "Failed", message);
    }
    Outcome::ImageGot { container, result }
}

async fn resolve(
    context: &Context,
    pod: &Pod,
    container: &str,
    image: &str,
    policy: PullPolicy,
) -> Result<Image, Failure> {
    if image.is_empty() || image.chars().any(|c| c.is_whitespace() || c.is_uppercase() && !image.contains(['/', ':'])) {
        return Err(Failure::new(
            "InvalidImageName",
            format!("Failed to apply default image tag {image:?}: couldn't parse image name"),
        ));
    }
    if policy != PullPolicy::Always {
        let present =
            context.runtime.image(image).await.map_err(|error| Failure::new("ImageInspectError", error.chain()))?;
        if let Some(present) = present {
            let message = format!("Container image {image:?} already present on machine");
            context.recorder.record(pod, Some(container), EventType::Normal, "Pulled", message);
            return Ok(present);
        }
        if policy == PullPolicy::Never {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            return Err(Failure::new("ErrImageNeverPull", message));
        }
    }
    context.recorder.record(pod, Some(container), EventType::Normal, "Pulling", format!("Pulling image {image:?}"));
    let credentials = credentials(context, pod, image).await;
    let began = std::time::Instant::now();
    let pulled = pull(context, image, credentials.as_ref())
        .await
        .map_err(|error| Failure::new("ErrImagePull", error.chain()))?;
    let message = format!("Successfully pulled image {image:?} in {:.3?}", began.elapsed());
    context.recorder.record(pod, Some(container), EventType::Normal, "Pulled", message);
    Ok(pulled)
}

/// Pulls `image`, and notes what that brought: the agent may remove it once nothing uses it.
async fn pull(context: &Context, image: &str, credentials: Option<&Credentials>) -> Result<Image, runtime::Error> {
    let before = context.runtime.images().await;
    let pulled = context.runtime.pull(image, credentials).await?;
    match (before, context.runtime.images().await) {
        (Ok(before), Ok(after)) => context.pulled_images.note(&pulled.engine_id, &before, &after),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(image, error = error.chain(), "an image was pulled that is never removed")
        }
    }
    Ok(pulled)
}

/// From the pod's pull secrets; ones that are missing or unreadable are passed over, as the kubelet does.
async fn credentials(context: &Context, pod: &Pod, image: &str) -> Option<Credentials> {
    let mut secrets = Vec::new();
    for key in pull_secret::references(pod) {
        match context.objects.watch(&key).read().await {
            Ok(Some(secret)) => secrets.push(secret),
            Ok(None) => tracing::warn!(%key, "an image pull secret is not there"),
            Err(error) => tracing::warn!(%key, %error, "an image pull secret cannot be read"),
        }
    }
    pull_secret::credentials(image, secrets.iter().map(|secret| &**secret))
}
