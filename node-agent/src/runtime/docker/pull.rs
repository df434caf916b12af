//! Pulls: how a reference is split for Docker, and its answer drained.

use std::time::Duration;

use bollard::{auth::DockerCredentials, errors::Error, query_parameters::CreateImageOptions};
use futures::TryStreamExt;

use crate::runtime::Credentials;

/// A pull that reports no progress for this long is given up.
const STALLED: Duration = Duration::from_secs(300);

/// Pulls an image.
pub(super) async fn pull(
    client: &bollard::Docker,
    reference: &str,
    credentials: Option<&Credentials>,
) -> Result<(), Error> {
    let (image, tag) = split(reference);
    let options = CreateImageOptions { from_image: Some(image.to_owned()), tag, ..Default::default() };
    let credentials = credentials.map(|c| DockerCredentials {
        username: Some(c.username.clone()),
        password: Some(c.password.clone()),
        identitytoken: c.identity_token.clone(),
        serveraddress: Some(c.server.clone()),
        ..Default::default()
    });
    let mut progress = client.create_image(Some(options), None, credentials);
    while tokio::time::timeout(STALLED, progress.try_next()).await.map_err(|_| Error::RequestTimeoutError)??.is_some() {
    }
    Ok(())
}

/// Image and tag; without a tag Docker would pull all there are. A digest stays with the image.
pub(super) fn split(reference: &str) -> (&str, Option<String>) {
    if reference.contains('@') {
        return (reference, None);
    }
    match reference.rsplit_once(':') {
        Some((image, tag)) if !tag.contains('/') => (image, Some(tag.to_owned())),
        _ => (reference, Some("latest".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_reference_without_tag_is_the_latest_and_a_port_is_no_tag() {
        assert_eq!(split("hello"), ("hello", Some("latest".into())));
        assert_eq!(split("localhost:5000/hello"), ("localhost:5000/hello", Some("latest".into())));
        assert_eq!(split("localhost:5000/hello:v1"), ("localhost:5000/hello", Some("v1".into())));
        assert_eq!(split("hello@sha256:12"), ("hello@sha256:12", None));
    }
}
