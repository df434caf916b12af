//! The kinds that the API serves now, by discovery: for controllers that work on all of them.
//!
//! Those of other servers are among them. Where such a server cannot be asked, its kinds stay what they were: nothing
//! may conclude from their absence that their objects are gone.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use futures::FutureExt;
use http::{Request, header};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject},
};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::engine::Tasks;

const RETRY: Duration = Duration::from_secs(1);
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// What a kind must take to be worked on.
const NEEDED: [&str; 3] = ["list", "watch", "delete"];

/// One kind that can be listed, watched and deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    /// Group, version, kind and plural.
    pub resource: ApiResource,
    /// Whether its objects belong to namespaces.
    pub namespaced: bool,
    /// Whether all of a namespace can be deleted in one request.
    pub collection: bool,
    /// Whether its objects have the subresource `scale`.
    pub scale: bool,
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

/// What one discovery found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Discovered {
    /// All served kinds; of stale versions those that were found before.
    pub kinds: Vec<Served>,
    /// Versions whose server could not be asked: `metrics.k8s.io/v1beta1`.
    pub stale: BTreeSet<String>,
}

/// How current [`ServedKinds`] are.
#[derive(Clone)]
pub struct Currency {
    changed: [watch::Receiver<u64>; 2],
    /// What `changed` said before the last discovery that succeeded.
    asked: watch::Receiver<Option<[u64; 2]>>,
}

impl Currency {
    /// Returns when a discovery has ended that saw all changes up to now. `false` if there will be none.
    pub async fn reached(&self) -> bool {
        let now = [*self.changed[0].borrow(), *self.changed[1].borrow()];
        let mut asked = self.asked.clone();
        let reached = |asked: &[u64; 2]| asked.iter().zip(&now).all(|(asked, now)| asked >= now);
        asked.wait_for(|asked| asked.as_ref().is_some_and(reached)).await.is_ok()
    }
}

/// All served kinds as of the last discovery; `None` before the first.
pub type ServedKinds = watch::Receiver<Option<Arc<Discovered>>>;

impl Discovered {
    /// The kinds whose objects can be asked for now.
    pub fn current(&self) -> impl Iterator<Item = &Served> {
        self.kinds.iter().filter(|kind| !self.stale.contains(&kind.resource.api_version))
    }

    /// Keeps what was known of the stale versions.
    fn with_stale_of(mut self, before: Option<&Self>) -> Self {
        let known = before.into_iter().flat_map(|before| &before.kinds);
        let kept: Vec<Served> = known
            .filter(|kind| self.stale.contains(&kind.resource.api_version))
            .filter(|kind| !self.kinds.iter().any(|found| found.name() == kind.name()))
            .cloned()
            .collect();
        self.kinds.extend(kept);
        self
    }
}

/// Starts the task that discovers the kinds now and each time that one of `changed` changes: kinds of this server, and
/// those of others.
pub fn start(client: &Client, changed: [watch::Receiver<u64>; 2], tasks: &Tasks) -> (ServedKinds, Currency) {
    let (kinds, asked) = (watch::Sender::new(None), Arc::new(watch::Sender::new(None)));
    let receiver = kinds.subscribe();
    let currency = Currency { changed: changed.clone(), asked: asked.subscribe() };
    let discover = {
        let client = client.clone();
        move || discover(client.clone())
    };
    let kinds = Arc::new(kinds);
    tasks.spawn("discovery", move |stop| {
        let found = DiscoveryPublisher { kinds: kinds.clone(), asked: asked.clone() };
        keep(found, changed.clone(), discover.clone(), stop).boxed()
    });
    (receiver, currency)
}

/// Where discoveries are told.
struct DiscoveryPublisher {
    kinds: Arc<watch::Sender<Option<Arc<Discovered>>>>,
    asked: Arc<watch::Sender<Option<[u64; 2]>>>,
}

async fn keep<F>(
    DiscoveryPublisher { kinds, asked }: DiscoveryPublisher,
    [mut own, mut others]: [watch::Receiver<u64>; 2],
    discover: impl Fn() -> F + Send + Sync,
    stop: CancellationToken,
) where
    F: Future<Output = kube::Result<Discovered>> + Send,
{
    loop {
        // Marked before the question: a change that comes during the discovery is one for the next.
        let now = [*own.borrow_and_update(), *others.borrow_and_update()];
        let wait = match discover().await {
            Ok(found) => {
                kinds.send_if_modified(|kinds| {
                    let found = Arc::new(found.with_stale_of(kinds.as_deref()));
                    let differs = kinds.as_ref() != Some(&found);
                    *kinds = Some(found);
                    differs
                });
                asked.send_replace(Some(now));
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
                None => tokio::select! {
                    Ok(()) = own.changed() => {}
                    Ok(()) = others.changed() => {}
                    // Without their senders nothing changes any more.
                    else => std::future::pending().await,
                },
            }
        };
        if stop.run_until_cancelled(next).await.is_none() {
            return;
        }
    }
}

async fn discover(client: Client) -> kube::Result<Discovered> {
    let mut discovered = Discovered::default();
    for path in ["/api", "/apis"] {
        let request = Request::get(path).header(header::ACCEPT, ACCEPT).body(Vec::new());
        let list: Value = client.request(request.map_err(kube::Error::HttpError)?).await?;
        for group in list["items"].as_array().into_iter().flatten() {
            discovered.add(group);
        }
    }
    Ok(discovered)
}

impl Discovered {
    /// Adds the resources of an `APIGroupDiscovery`, each in the first version that has it.
    fn add(&mut self, group: &Value) {
        let group_name = group["metadata"]["name"].as_str().unwrap_or_default();
        // Both groups of Events are views of the same objects, so one suffices.
        if group_name == "events.k8s.io" {
            return;
        }
        let mut plurals = BTreeSet::new();
        for version in group["versions"].as_array().into_iter().flatten() {
            let version_name = version["version"].as_str().unwrap_or_default();
            let api_version = match group_name {
                "" => version_name.to_owned(),
                group => format!("{group}/{version_name}"),
            };
            if version["freshness"] == "Stale" {
                self.stale.insert(api_version);
                continue;
            }
            for resource in version["resources"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let verbs: Vec<&str> =
                    resource["verbs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let plural = text(&resource["resource"]);
                let is_first = plurals.insert(plural.clone());
                if !is_first || !NEEDED.iter().all(|verb| verbs.contains(verb)) {
                    continue;
                }
                self.kinds.push(Served {
                    namespaced: resource["scope"] == "Namespaced",
                    collection: verbs.contains(&"deletecollection"),
                    scale: has_scale(resource),
                    resource: ApiResource {
                        group: group_name.to_owned(),
                        version: version_name.to_owned(),
                        api_version: api_version.clone(),
                        kind: text(&resource["responseKind"]["kind"]),
                        plural,
                    },
                });
            }
        }
    }
}

fn has_scale(resource: &Value) -> bool {
    let subresources = resource["subresources"].as_array().into_iter().flatten();
    subresources.into_iter().any(|sub| sub["subresource"] == "scale" && sub["responseKind"]["kind"] == "Scale")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use serde_json::json;

    use super::*;

    fn served(plural: &str) -> Served {
        let resource = ApiResource {
            group: "example.com".into(),
            version: "v1".into(),
            api_version: "example.com/v1".into(),
            kind: plural.into(),
            plural: plural.into(),
        };
        Served { resource, namespaced: true, collection: true, scale: true }
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
            std::future::ready(answer.map(|kinds| Discovered { kinds, ..Discovered::default() }))
        };
        let (_others, others_changed) = watch::channel(0);
        let asked_for = Arc::new(watch::Sender::new(None));
        let changes = [changed, others_changed];
        let currency = Currency { changed: changes.clone(), asked: asked_for.subscribe() };
        let task = tokio::spawn(keep(DiscoveryPublisher { kinds, asked: asked_for }, changes, discover, stop.clone()));
        let names = |found: &Option<Arc<Discovered>>| -> Vec<String> {
            found.iter().flat_map(|found| &found.kinds).map(Served::name).collect()
        };
        let first = seen.wait_for(Option::is_some).await.map(|kinds| names(&kinds)).expect("the sender lives");
        assert_eq!(first, ["widgets.example.com"]);
        generation.send_replace(1);
        assert!(currency.reached().await);
        assert_eq!(names(&seen.borrow()).len(), 2, "what is reached has seen the change");
        let second = seen.wait_for(|kinds| names(kinds).len() == 2).await.map(|kinds| names(&kinds));
        assert_eq!(second.expect("the sender lives"), ["widgets.example.com", "gadgets.example.com"]);
        stop.cancel();
        task.await.expect("no panic");
    }

    #[test]
    fn kinds_of_a_server_that_cannot_be_asked_stay_what_they_were() {
        let group = |freshness: &str, resources: Value| {
            let version =
                |name: &str, resources: Value| json!({"version": name, "freshness": freshness, "resources": resources});
            let list = json!([
                version("v1", resources),
                version(
                    "v1beta1",
                    json!([{"resource": "widgets",
                "verbs": ["list", "watch", "delete"], "scope": "Cluster", "responseKind": {"kind": "Widget"}}])
                )
            ]);
            json!({"metadata": {"name": "example.com"}, "versions": list})
        };
        let read = |group: Value| {
            let mut found = Discovered::default();
            found.add(&group);
            found
        };
        let verbs = json!(["delete", "deletecollection", "list", "watch"]);
        let scale = json!({"subresource": "scale", "responseKind": {"kind": "Scale"}});
        let resources = json!([{"resource": "widgets", "scope": "Namespaced", "verbs": verbs,
            "responseKind": {"kind": "widgets"}, "subresources": [scale]}, {"resource": "readings", "verbs": ["get", "list"]}]);
        let first = read(group("Current", resources));
        assert_eq!(first.kinds, [served("widgets")]);
        let second = read(group("Stale", json!([]))).with_stale_of(Some(&first));
        assert_eq!(second.kinds, first.kinds);
        assert_eq!(second.current().count(), 0);
        assert_eq!(Vec::from_iter(&second.stale), ["example.com/v1", "example.com/v1beta1"]);
        let gone = Discovered::default().with_stale_of(Some(&second));
        assert!(gone.kinds.is_empty(), "a version that is not served any more has no kinds");
    }
}
