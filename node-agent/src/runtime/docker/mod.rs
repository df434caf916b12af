//! The Docker Engine as a [`Runtime`], over its socket. Turns calls into requests and answers into the runtime's types;
//! decides nothing about pods. Docker's networks are not used.

mod create;
mod events;
mod exec;
mod hijack;
mod inspect;
mod logs;
mod process;
mod process_tree;
mod pull;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bollard::{
    errors::Error as Bollard,
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptions, ListContainersOptions, ListImagesOptions, RemoveContainerOptionsBuilder,
        RemoveImageOptions, StatsOptionsBuilder, StopContainerOptionsBuilder, TagImageOptions,
        WaitContainerOptionsBuilder,
    },
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use tokio::sync::Semaphore;

use super::{
    Container, ContainerSpec, Credentials, Error, Event, ExecResult, Image, LocalImage, LogChunk, LogOptions, Process,
    ResourceUpdate, Runtime, SandboxSpec, StreamOptions, Summary, owner, sandbox_image::SandboxImage,
};

/// One Docker Engine and the containers of one node in it. Cloning is cheap.
#[derive(Clone)]
pub struct Docker {
    client: bollard::Docker,
    host: Arc<str>,
    node: Arc<str>,
    version: Arc<str>,
    sandbox_image: Arc<SandboxImage>,
    starts: Arc<Semaphore>,
}

/// Starts in flight at once. Docker's own work for a start keeps about two cores busy; more at once only slows each
/// down.
const CONCURRENT_STARTS: usize = 8;

/// For requests that do not wait on a container's end: generous, since a loaded machine is slow rather than broken.
const TIMEOUT: Duration = Duration::from_secs(120);

impl Docker {
    /// Connects to `host` (`unix:///path` or `tcp://host:port`) for the node of this name, agrees on an API version and
    /// loads the sandbox image if it is not there.
    pub async fn connect(host: &str, node: &str) -> Result<Self, Error> {
        let unreachable = |source: Bollard| Error::Unreachable { host: host.to_owned(), source: source.into() };
        let client = bollard::Docker::connect_with_host(host).map_err(unreachable)?.with_timeout(TIMEOUT);
        let client = client.negotiate_version().await.map_err(unreachable)?;
        let version = client.version().await.map_err(unreachable)?;
        let architecture = version.arch.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let sandbox_image = SandboxImage::for_architecture(&architecture).ok_or_else(|| Error::Refused {
            operation: "make the sandbox image",
            message: format!("no sandbox program for architecture {architecture}"),
        })?;
        let docker = Self {
            client,
            host: host.into(),
            node: node.into(),
            version: version.version.unwrap_or_default().into(),
            sandbox_image: Arc::new(sandbox_image),
            starts: Arc::new(Semaphore::new(CONCURRENT_STARTS)),
        };
        docker.prepare().await?;
        Ok(docker)
    }

    /// Names the operation in an error, and keeps apart the kinds that callers distinguish.
    fn error(&self, operation: &'static str) -> impl Fn(Bollard) -> Error + use<> {
        let host = self.host.clone();
        move |source| match source {
            Bollard::DockerResponseServerError { status_code: 404, message } => Error::NotFound { what: message },
            Bollard::DockerResponseServerError { message, .. } => {
                Error::Refused { operation, message: message.trim().to_owned() }
            }
            Bollard::DockerStreamError { error } => Error::Refused { operation, message: error },
            Bollard::HyperLegacyError { .. } | Bollard::HyperResponseError { .. } => {
                Error::Unreachable { host: host.to_string(), source: source.into() }
            }
            _ => Error::Failed { operation, source: source.into() },
        }
    }

    /// Gives an image that stays the names back that were removed already: pods ask for it by them.
    async fn name_again(&self, id: &str, names: &[&String]) {
        for name in names {
            let (repository, tag) = pull::split(name);
            let options = TagImageOptions { repo: Some(repository.to_owned()), tag };
            if let Err(error) = self.client.tag_image(id, Some(options)).await {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(id, %name, error, "an image that stays lost one of its names");
            }
        }
    }

    /// Creates a container of this name, in the place of one of the same name that an earlier try left behind.
    async fn create(&self, operation: &'static str, name: String, body: ContainerCreateBody) -> Result<String, Error> {
        let options = || Some(CreateContainerOptions { name: Some(name.clone()), ..Default::default() });
        match self.client.create_container(options(), body.clone()).await {
            Ok(created) => Ok(created.id),
            Err(Bollard::DockerResponseServerError { status_code: 409, .. }) => {
                self.remove(&name).await?;
                Ok(self.client.create_container(options(), body).await.map_err(self.error(operation))?.id)
            }
            Err(error) => Err(self.error(operation)(error)),
        }
    }
}

#[async_trait::async_trait]
impl Runtime for Docker {
    fn scheme(&self) -> &'static str {
        "docker"
    }

    async fn version(&self) -> Result<String, Error> {
        Ok(format!("docker://{}", self.version))
    }

    async fn ping(&self) -> Result<(), Error> {
        self.client.ping().await.map(drop).map_err(self.error("ping"))
    }

    async fn image_dir(&self) -> Result<Option<std::path::PathBuf>, Error> {
        let info = self.client.info().await.map_err(self.error("ask for its directory"))?;
        Ok(info.docker_root_dir.map(Into::into).filter(|directory: &std::path::PathBuf| directory.exists()))
    }

    async fn prepare(&self) -> Result<(), Error> {
        if self.image(&self.sandbox_image.reference).await?.is_some() {
            return Ok(());
        }
        let archive = bollard::body_full(self.sandbox_image.archive.clone().into());
        let progress =
            self.client.import_image(bollard::query_parameters::ImportImageOptions::default(), archive, None);
        progress.try_for_each(|_| async { Ok(()) }).await.map_err(self.error("load the sandbox image"))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        match self.client.inspect_image(reference).await {
            Ok(image) => Ok(Some(inspect::image(reference, image))),
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(self.error("inspect the image")(error)),
        }
    }

    async fn pull(&self, reference: &str, credentials: Option<&Credentials>) -> Result<Image, Error> {
        pull::pull(&self.client, reference, credentials).await.map_err(self.error("pull the image"))?;
        self.image(reference)
            .await?
            .ok_or_else(|| Error::NotFound { what: format!("image {reference} after its pull") })
    }

    async fn images(&self) -> Result<Vec<LocalImage>, Error> {
        let failed = self.error("list the images");
        let images = self.client.list_images(None::<ListImagesOptions>).await.map_err(&failed)?;
        // Second: a container that is made meanwhile counts. All of them, since the Engine may not be ours alone.
        let all = ListContainersOptions { all: true, ..Default::default() };
        let containers = self.client.list_containers(Some(all)).await.map_err(&failed)?;
        let used: HashSet<String> = containers.into_iter().filter_map(|container| container.image_id).collect();
        let images = images.into_iter().map(|image| {
            let image = inspect::local_image(image, &used);
            let is_ours = image.tags.contains(&self.sandbox_image.reference);
            LocalImage { is_used: image.is_used || is_ours, ..image }
        });
        Ok(images.collect())
    }

    async fn remove_image(&self, image: &LocalImage) -> Result<bool, Error> {
        // By its names: Docker removes an image with the last of them, and keeps one that another has named meanwhile.
        let names = if image.tags.is_empty() { vec![&image.id] } else { image.tags.iter().collect() };
        let mut removed = Vec::new();
        for name in names {
            match self.client.remove_image(name, None::<RemoveImageOptions>, None).await {
                Ok(_) => removed.push(name),
                Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => {}
                // A container is made from it: Docker says so only when the last name is to go.
                Err(Bollard::DockerResponseServerError { status_code: 409, .. }) => {
                    self.name_again(&image.id, &removed).await;
                    return Ok(false);
                }
                Err(error) => {
                    self.name_again(&image.id, &removed).await;
                    return Err(self.error("remove the image")(error));
                }
            }
        }
        Ok(true)
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<String, Error> {
        let body = create::sandbox(spec, &self.sandbox_image.reference, &self.node);
        match self.create("create the sandbox", spec.owner.container_name(), body.clone()).await {
            // Someone pruned the images: ours is loaded again.
            Err(Error::NotFound { .. }) => {
                self.prepare().await?;
                self.create("create the sandbox", spec.owner.container_name(), body).await
            }
            result => result,
        }
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let body = create::container(spec, &self.node);
        self.create("create the container", spec.owner.container_name(), body).await
    }

    async fn start(&self, id: &str) -> Result<(), Error> {
        let _permit = self.starts.acquire().await.expect("the semaphore is never closed");
        self.client.start_container(id, None).await.map_err(self.error("start the container"))
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let patient = self.client.clone().with_timeout(TIMEOUT.saturating_add(grace));
        match patient.stop_container(id, Some(options)).await {
            Ok(()) | Err(Bollard::DockerResponseServerError { status_code: 304 | 404, .. }) => Ok(()),
            Err(error) => Err(self.error("stop the container")(error)),
        }
    }

    async fn remove(&self, id: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.client.remove_container(id, Some(options)).await {
            Ok(()) | Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            // Another removal of it is under way: done when that is.
            Err(Bollard::DockerResponseServerError { status_code: 409, .. }) => {
                let options = WaitContainerOptionsBuilder::default().condition("removed").build();
                match self.client.wait_container(id, Some(options)).try_for_each(|_| async { Ok(()) }).await {
                    Ok(()) | Err(Bollard::DockerContainerWaitError { .. }) => Ok(()),
                    Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
                    Err(error) => Err(self.error("wait for the container's removal")(error)),
                }
            }
            Err(error) => Err(self.error("remove the container")(error)),
        }
    }

    async fn update(&self, id: &str, update: &ResourceUpdate) -> Result<(), Error> {
        let body = create::update(update);
        self.client.update_container(id, body).await.map_err(self.error("update the container"))
    }

    async fn memory_usage(&self, id: &str) -> Result<Option<u64>, Error> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut stats = self.client.stats(id, Some(options));
        let stats = stats.try_next().await.map_err(self.error("ask for the container's memory"))?;
        Ok(stats.and_then(|stats| stats.memory_stats?.usage))
    }

    async fn inspect(&self, id: &str) -> Result<Option<Container>, Error> {
        match self.client.inspect_container(id, None).await {
            Ok(container) => Ok(inspect::container(container)),
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(self.error("inspect the container")(error)),
        }
    }

    async fn list(&self) -> Result<Vec<Container>, Error> {
        let options = ListContainersOptions { all: true, filters: Some(self.own_containers()), ..Default::default() };
        let summaries = self.client.list_containers(Some(options)).await.map_err(self.error("list the containers"))?;
        let ids = summaries.into_iter().filter_map(|summary| summary.id);
        let inspected: Vec<_> = futures::stream::iter(ids)
            .map(|id| async move { self.inspect(&id).await })
            .buffer_unordered(CONCURRENT_STARTS)
            .try_collect()
            .await?;
        Ok(inspected.into_iter().flatten().collect())
    }

    async fn summaries(&self) -> Result<Vec<Summary>, Error> {
        let options = ListContainersOptions { all: true, filters: Some(self.own_containers()), ..Default::default() };
        let summaries = self.client.list_containers(Some(options)).await.map_err(self.error("list the containers"))?;
        Ok(summaries.into_iter().filter_map(inspect::summary).collect())
    }

    fn logs(&self, id: &str, options: &LogOptions) -> BoxStream<'static, Result<LogChunk, Error>> {
        let error = self.error("read the log");
        logs::logs(&self.client, id, options).map_err(error).boxed()
    }

    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
        limit: usize,
    ) -> Result<Option<ExecResult>, Error> {
        let result = exec::run(&self.client, id, command, timeout, limit).await;
        result.map_err(self.error("run a command in the container"))
    }

    async fn start_exec(&self, id: &str, command: &[String], streams: StreamOptions) -> Result<Process, Error> {
        process::start(self, id, command, streams).await
    }

    async fn attach(&self, id: &str, streams: StreamOptions) -> Result<Process, Error> {
        process::attach(self, id, streams).await
    }

    async fn events(&self) -> Result<BoxStream<'static, Event>, Error> {
        // Asked first, so that an unreachable engine is an error and not an empty stream.
        self.client.ping().await.map_err(self.error("ping"))?;
        Ok(events::events(&self.client, self.own_containers()))
    }

    async fn uninstall(&self) -> Result<(), Error> {
        match self.client.remove_image(&self.sandbox_image.reference, None::<RemoveImageOptions>, None).await {
            Ok(_) | Err(Bollard::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(self.error("remove the sandbox image")(error)),
        }
    }
}

impl Docker {
    /// The filter that leaves only this node's containers.
    fn own_containers(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".to_owned(), vec![format!("{}={}", owner::NODE, self.node)])])
    }
}
