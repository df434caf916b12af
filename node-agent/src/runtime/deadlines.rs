//! A [`Runtime`] in which every call ends: after its deadline it fails with [`Error::TimedOut`]. Decides how long each
//! call may take, and nothing else. A call that was given up may still take effect; a later list shows it.

use std::{future::Future, sync::Arc, time::Duration};

use futures::stream::BoxStream;

use super::{
    Container, ContainerSpec, Credentials, Error, Event, ExecResult, Image, LocalImage, LogChunk, LogOptions, Process,
    ResourceUpdate, Runtime, SandboxSpec, StreamOptions, Summary,
};

/// For calls that change or read one thing. Generous: a loaded machine is slow rather than broken.
const CALL: Duration = Duration::from_secs(120);
/// For a start, with the wait for its turn: the runtime bounds how many it makes at once. For the removal of an image,
/// too, whose files may be many.
const START: Duration = Duration::from_secs(600);
/// For a whole pull, of any image.
const PULL: Duration = Duration::from_secs(3600);

/// Gives each call of `inner` a deadline.
pub struct Deadlines {
    inner: Arc<dyn Runtime>,
    call: Duration,
    start: Duration,
    pull: Duration,
}

impl Deadlines {
    /// The deadlines of a node.
    pub fn new(inner: Arc<dyn Runtime>) -> Self {
        Self { inner, call: CALL, start: START, pull: PULL }
    }
}

async fn within<T>(
    after: Duration,
    operation: &'static str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(after, call).await.unwrap_or(Err(Error::TimedOut { operation, after }))
}

#[async_trait::async_trait]
impl Runtime for Deadlines {
    fn scheme(&self) -> &'static str {
        self.inner.scheme()
    }

    async fn version(&self) -> Result<String, Error> {
        within(self.call, "ask for the runtime's version", self.inner.version()).await
    }

    async fn prepare(&self) -> Result<(), Error> {
        within(self.call, "prepare the runtime", self.inner.prepare()).await
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        within(self.call, "inspect the image", self.inner.image(reference)).await
    }

    async fn pull(&self, reference: &str, credentials: Option<&Credentials>) -> Result<Image, Error> {
        within(self.pull, "pull the image", self.inner.pull(reference, credentials)).await
    }

    async fn images(&self) -> Result<Vec<LocalImage>, Error> {
        within(self.call, "list the images", self.inner.images()).await
    }

    async fn remove_image(&self, image: &LocalImage) -> Result<bool, Error> {
        within(self.start, "remove the image", self.inner.remove_image(image)).await
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<String, Error> {
        within(self.call, "create the sandbox", self.inner.create_sandbox(spec)).await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, Error> {
        within(self.call, "create the container", self.inner.create_container(spec)).await
    }

    async fn start(&self, id: &str) -> Result<(), Error> {
        within(self.start, "start the container", self.inner.start(id)).await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), Error> {
        within(self.call.saturating_add(grace), "stop the container", self.inner.stop(id, grace)).await
    }

    async fn remove(&self, id: &str) -> Result<(), Error> {
        within(self.call, "remove the container", self.inner.remove(id)).await
    }

    async fn update(&self, id: &str, update: &ResourceUpdate) -> Result<(), Error> {
        within(self.call, "update the container", self.inner.update(id, update)).await
    }

    async fn memory_usage(&self, id: &str) -> Result<Option<u64>, Error> {
        within(self.call, "ask for the container's memory", self.inner.memory_usage(id)).await
    }

    async fn inspect(&self, id: &str) -> Result<Option<Container>, Error> {
        within(self.call, "inspect the container", self.inner.inspect(id)).await
    }

    async fn list(&self) -> Result<Vec<Container>, Error> {
        within(self.call, "list the containers", self.inner.list()).await
    }

    async fn summaries(&self) -> Result<Vec<Summary>, Error> {
        within(self.call, "list the containers", self.inner.summaries()).await
    }

    /// A log that is followed lasts as long as its reader stays: it has no deadline.
    fn logs(&self, id: &str, options: &LogOptions) -> BoxStream<'static, Result<LogChunk, Error>> {
        self.inner.logs(id, options)
    }

    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
        limit: usize,
    ) -> Result<Option<ExecResult>, Error> {
        let call = self.inner.exec(id, command, timeout, limit);
        within(self.call.saturating_add(timeout), "run a command in the container", call).await
    }

    /// The start alone has a deadline: the command lasts as long as its client stays.
    async fn start_exec(&self, id: &str, command: &[String], streams: StreamOptions) -> Result<Process, Error> {
        within(self.call, "start a command in the container", self.inner.start_exec(id, command, streams)).await
    }

    async fn attach(&self, id: &str, streams: StreamOptions) -> Result<Process, Error> {
        within(self.call, "attach to the container", self.inner.attach(id, streams)).await
    }

    async fn events(&self) -> Result<BoxStream<'static, Event>, Error> {
        within(self.call, "ask for the runtime's events", self.inner.events()).await
    }

    async fn uninstall(&self) -> Result<(), Error> {
        within(self.call, "remove what the runtime was prepared with", self.inner.uninstall()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::{FakeRuntime, Fault};

    #[tokio::test]
    async fn a_call_that_gets_no_answer_fails_after_its_deadline() {
        let fake = Arc::new(FakeRuntime::default());
        let call = Duration::from_millis(1);
        let runtime = Deadlines { inner: fake.clone(), call, start: call, pull: call };
        fake.put(Fault::Hang("inspect"));
        fake.put(Fault::Hang("stop"));
        let error = runtime.inspect("c").await.unwrap_err();
        assert_eq!(error.to_string(), "inspect the container: no answer within 0 s");
        let error = runtime.stop("c", Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "stop the container: no answer within 1 s");
    }

    #[tokio::test]
    async fn no_grace_is_too_long_to_be_counted() {
        let runtime = Deadlines::new(Arc::new(FakeRuntime::default()));
        runtime.stop("c", Duration::MAX).await.unwrap();
    }
}
