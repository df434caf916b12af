//! The kinds that the API serves now, by discovery: for controllers that work on all of them.

use std::{future::Future, sync::Arc, time::Duration};

use futures::FutureExt;
use kube::{
    Api, Client, Discovery,
    core::{ApiResource, DynamicObject},
    discovery::{ApiCapabilities, Scope, verbs},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::engine::Tasks;

const RETRY: Duration = Duration::from_secs(1);

/// One kind that can be listed, watched and deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    /// Group, version, kind and plural.
    pub resource: ApiResource,
    /// Whether its objects belong to namespaces.
    pub namespaced: bool,
    /// Whether all of a namespace can be deleted in one request.
    pub collection: bool,
}

impl Served {
    /// The API of this kind, within `namespace` if it has namespaces.
    pub fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        match self.namespaced {
            true => Api::namespaced_with(client.clone(), namespace, &self.resource),
            false => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// The plural name, with the group where it has one, as `kubectl` shows it.
    pub fn name(&self) -> String {
        match self.resource.group.as_str() {
            "" => self.resource.plural.clone(),
            group => format!("{}.{group}", self.resource.plural),
        }
    }
}

/// All served kinds as of the last discovery; `None` before the first.
pub type ServedKinds = watch::Receiver<Option<Arc<[Served]>>>;

/// Starts the task that discovers the kinds now and each time that `changed` changes.
pub fn start(client: &Client, changed: watch::Receiver<u64>, tasks: &Tasks) -> ServedKinds {
    let kinds = watch::Sender::new(None);
    let receiver = kinds.subscribe();
    let discover = {
        let client = client.clone();
        move || discover(client.clone())
    };
    let kinds = Arc::new(kinds);
    tasks.spawn("discovery", move |stop| keep(kinds.clone(), changed.clone(), discover.clone(), stop).boxed());
    receiver
}

async fn keep<F>(
    kinds: Arc<watch::Sender<Option<Arc<[Served]>>>>,
    mut changed: watch::Receiver<u64>,
    discover: impl Fn() -> F + Send + Sync,
    stop: CancellationToken,
) where
    F: Future<Output = kube::Result<Vec<Served>>> + Send,
{
    loop {
        // Marked before the question: a change that comes during the discovery is one for the next.
        changed.mark_unchanged();
        let wait = match discover().await {
            Ok(served) => {
                let served: Arc<[Served]> = served.into();
                kinds.send_if_modified(|kinds| {
                    let differs = kinds.as_ref() != Some(&served);
                    *kinds = Some(served);
                    differs
                });
                None
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot discover the served kinds");
                Some(RETRY)
            }
        };
        let next = async {
            match wait {
                Some(delay) => tokio::time::sleep(delay).await,
                // Without its sender nothing changes any more.
                None if changed.changed().await.is_err() => std::future::pending().await,
                None => {}
            }
        };
        if stop.run_until_cancelled(next).await.is_none() {
            return;
        }
    }
}

async fn discover(client: Client) -> kube::Result<Vec<Served>> {
    let discovery = Discovery::new(client).run_aggregated().await?;
    let kinds = discovery.groups().flat_map(|group| group.recommended_resources());
    Ok(kinds.filter_map(|(resource, capabilities)| read(resource, &capabilities)).collect())
}

/// Both groups of Events are views of the same objects, so one suffices.
fn read(resource: ApiResource, capabilities: &ApiCapabilities) -> Option<Served> {
    let needed = [verbs::LIST, verbs::WATCH, verbs::DELETE];
    if resource.group == "events.k8s.io" || !needed.iter().all(|verb| capabilities.supports_operation(verb)) {
        return None;
    }
    Some(Served {
        namespaced: capabilities.scope == Scope::Namespaced,
        collection: capabilities.supports_operation(verbs::DELETE_COLLECTION),
        resource,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    fn served(plural: &str) -> Served {
        let resource = ApiResource {
            group: "example.com".into(),
            version: "v1".into(),
            api_version: "example.com/v1".into(),
            kind: plural.into(),
            plural: plural.into(),
        };
        Served { resource, namespaced: true, collection: true }
    }

    #[tokio::test]
    async fn kinds_are_discovered_again_when_they_change_and_after_a_failure() {
        let kinds = Arc::new(watch::Sender::new(None));
        let mut seen = kinds.subscribe();
        let (generation, changed) = watch::channel(0);
        let stop = CancellationToken::new();
        let asked = AtomicUsize::new(0);
        let discover = move || {
            let answer = match asked.fetch_add(1, Relaxed) {
                0 => Err(kube::Error::LinesCodecMaxLineLengthExceeded),
                1 => Ok(vec![served("widgets")]),
                _ => Ok(vec![served("widgets"), served("gadgets")]),
            };
            std::future::ready(answer)
        };
        let task = tokio::spawn(keep(kinds, changed, discover, stop.clone()));
        let names = |kinds: &Option<Arc<[Served]>>| -> Vec<String> {
            kinds.iter().flat_map(|k| k.iter()).map(Served::name).collect()
        };
        let first = seen.wait_for(Option::is_some).await.map(|kinds| names(&kinds)).expect("the sender lives");
        assert_eq!(first, ["widgets.example.com"]);
        generation.send_replace(1);
        let second = seen.wait_for(|kinds| names(kinds).len() == 2).await.map(|kinds| names(&kinds));
        assert_eq!(second.expect("the sender lives"), ["widgets.example.com", "gadgets.example.com"]);
        stop.cancel();
        task.await.expect("no panic");
    }
}
