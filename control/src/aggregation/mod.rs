//! Aggregation: versions of API groups that other servers answer for, behind Services of the cluster.
//!
//! ```text
//!  client ─► gate (who, may they) ─► dispatch ─► served here? ─► yes: the API
//!                                                    │ no
//!                                                    ▼
//!  APIServices ─► Table ─► Backend ─► headers ─► TLS to a ready endpoint ─► extension API server
//!                   │                                                            │
//!                   ├─► availability ─► condition Available                      │
//!                   └─► documents ◄── discovery, OpenAPI ────────────────────────┘
//! ```
//!
//! - **APIService**: an object that says which server answers for a version of a group. Without `spec.service` it is
//!   this one.
//! - **extension API server**: a server behind the Service of an APIService. It believes what the front proxy says of
//!   who asks.
//! - **[`Backend`]**: an APIService with a Service, read once.
//! - **front proxy**: this server, as extension API servers see it.
//!
//! | file | what it knows |
//! |---|---|
//! | `table` | which backend answers for what |
//! | `forward` | requests there and answers back |
//! | `availability` | whether backends can be reached |
//! | `documents`, `openapi`, `published` | what backends serve, for discovery and OpenAPI |
//! | `registration` | APIServices of what is served here |
//! | `kept_object` | writes of objects that are kept as they must be |
//! | `front_proxy`, `authentication_config` | the certificate of the front proxy; how servers learn of it |
//!
//! What this server serves itself is never forwarded, whatever an APIService says.

mod authentication_config;
mod availability;
mod backend;
mod documents;
mod forward;
mod front_proxy;
mod kept_object;
mod openapi;
mod published;
mod registration;
mod table;
#[cfg(test)]
pub mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use futures::FutureExt;
use http::{Request, header};
use kube::Client;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[cfg(test)]
pub use self::published::RemoteResources;
pub use self::{
    authentication_config::Authorities,
    backend::{Backend, any_certificate},
    front_proxy::{FrontProxy, FrontProxyError},
    openapi::merge,
    published::{Published, RemoteSpec, RemoteVersion, Version3},
    registration::CUSTOM,
};
use self::{
    availability::Failures,
    backend::{Dialer, RESOURCE},
    documents::Documents,
    registration::Registration,
    table::Table,
};
use crate::{
    auth::stream_limit::StreamLimit,
    engine::{Failure, Outcome, WorkQueue, api_code, work},
    kinds::Registry,
    metrics::{Labels, Scrape},
    reflector::{Reflector, StoreUpdate},
    store::{Event, Snapshot, Store},
    supervise::Supervisor,
    webhook::Dial,
};

const USER_AGENT: &str = concat!("fairlead-aggregator/", env!("CARGO_PKG_VERSION"));
/// Backends that are asked at a time.
const CONCURRENCY: usize = 5;

const SERVICES: &str = "services";
const SLICES: &str = "endpointslices.discovery.k8s.io";

/// Knows the backends and reaches them. Cheap to clone; clones share what is known.
#[derive(Clone)]
pub struct Aggregator {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    dialer: Dialer,
    table: ArcSwap<Table>,
    /// Held while the next table is made.
    refreshing: Mutex<()>,
    published: Published,
    /// By APIService. Held while what is known is published.
    documents: Mutex<BTreeMap<String, Documents>>,
    /// Of the servers that cannot be reached.
    failures: Failures,
    /// Of those that switch protocols.
    streams: StreamLimit,
    /// APIServices whose servers are to be checked, and those that are to be asked what they serve.
    checks: Arc<WorkQueue<String>>,
    refreshes: Arc<WorkQueue<String>>,
}

impl Aggregator {
    /// Knows the APIServices of `store` as they are now. What becomes known of backends is told through `published`.
    pub fn new(store: Arc<dyn Store>, published: Published, dial: Arc<dyn Dial>, front_proxy: Arc<FrontProxy>) -> Self {
        let inner = Inner {
            store,
            dialer: Dialer { dial, front_proxy },
            table: ArcSwap::default(),
            refreshing: Mutex::default(),
            published,
            documents: Mutex::default(),
            failures: Failures::default(),
            streams: StreamLimit::default(),
            checks: Arc::new(WorkQueue::new("apiservice-availability")),
            refreshes: Arc::new(WorkQueue::new("apiservice-documents")),
        };
        let aggregator = Self { inner: Arc::new(inner) };
        aggregator.refresh(&aggregator.store().snapshot());
        aggregator
    }

    /// Who answers for a version of a group that is not served here, by all that was written until now.
    pub fn backend(&self, group: &str, version: &str) -> Option<Arc<Backend>> {
        let snapshot = self.store().snapshot();
        let name = format!("{version}.{group}");
        let stored = snapshot.get(RESOURCE, &name).map(|object| object.revision);
        if self.inner.table.load().revision_of(&name) != stored {
            self.refresh(&snapshot);
        }
        self.inner.table.load().get(group, version)
    }

    /// The roots of all versions that others answer for: `apis/GROUP/VERSION`.
    pub fn roots(&self) -> Vec<String> {
        self.inner.table.load().iter().map(|backend| backend.root()).collect()
    }

    /// Starts the tasks that keep what is known up to date, and the objects that go with it. `client` may do
    /// everything. `authorities` are those that extension API servers are to trust.
    pub fn start(
        &self,
        supervisor: &Supervisor,
        client: &Client,
        kinds: &Registry,
        authorities: watch::Receiver<Authorities>,
    ) {
        let aggregator = self.clone();
        supervisor.spawn("apiservice-watch", move |stop| aggregator.clone().watch(stop).boxed());
        let (aggregator, of_checks) = (self.clone(), client.clone());
        supervisor.spawn("apiservice-availability", move |stop| {
            let (aggregator, client) = (aggregator.clone(), of_checks.clone());
            let queue = aggregator.inner.checks.clone();
            let check = move |name: String| {
                let (aggregator, client) = (aggregator.clone(), client.clone());
                async move { aggregator.check(&client, &name).await }
            };
            work("apiservice-availability", queue, CONCURRENCY, stop, check).boxed()
        });
        let aggregator = self.clone();
        supervisor.spawn("apiservice-documents", move |stop| {
            let aggregator = aggregator.clone();
            let queue = aggregator.inner.refreshes.clone();
            let refresh = move |name: String| {
                let aggregator = aggregator.clone();
                async move { Ok(aggregator.refresh_documents(&name).await) }
            };
            work("apiservice-documents", queue, CONCURRENCY, stop, refresh).boxed()
        });
        let registration = Registration::new(self.inner.store.clone(), kinds.clone(), client.clone());
        supervisor.spawn("apiservice-registration", move |stop| registration.clone().run(stop).boxed());
        let (store, client) = (self.inner.store.clone(), client.clone());
        supervisor.spawn("extension-apiserver-authentication", move |stop| {
            authentication_config::run(store.clone(), client.clone(), authorities.clone(), stop).boxed()
        });
    }

    /// Tells which backends are not available.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> std::fmt::Result {
        let table = self.inner.table.load();
        let labels: Vec<([(&str, &str); 1], bool)> =
            table.iter().map(|backend| ([("name", backend.name.as_str())], backend.available)).collect();
        let samples = labels.iter().map(|(labels, available)| (labels as Labels<'_>, f64::from(u8::from(!available))));
        let help = "Whether an APIService is not available: 1, or 0 while it is";
        scrape.gauges("aggregator_unavailable_apiservice", help, samples)
    }

    fn store(&self) -> &dyn Store {
        &*self.inner.store
    }

    fn dialer(&self) -> &Dialer {
        &self.inner.dialer
    }

    /// Reads the APIServices anew; enqueues those that are new, or lead elsewhere than before.
    fn refresh(&self, snapshot: &Snapshot) {
        let _refreshing = self.inner.refreshing.lock();
        let before = self.inner.table.load_full();
        if before.is_after(snapshot) {
            return;
        }
        let table = before.refreshed(snapshot, self.dialer());
        for backend in table.iter() {
            let known = before.named(&backend.name);
            if known.is_none_or(|known| !known.is_like(backend)) {
                self.inner.checks.add(backend.name.clone());
            }
            if known.is_none_or(|known| !known.is_like(backend) || known.available != backend.available) {
                self.inner.refreshes.add(backend.name.clone());
            }
        }
        self.inner.table.store(Arc::new(table));
        self.publish(|_| {});
    }

    /// Says what is known after `change`, of the backends that there are.
    fn publish(&self, change: impl FnOnce(&mut BTreeMap<String, Documents>)) {
        let mut documents = self.inner.documents.lock();
        change(&mut documents);
        let table = self.inner.table.load();
        documents.retain(|name, _| table.named(name).is_some());
        let versions = table
            .iter()
            .map(|backend| RemoteVersion {
                group: backend.group.clone(),
                version: backend.version.clone(),
                group_priority: backend.group_priority,
                version_priority: backend.version_priority,
                found: documents.get(&backend.name).and_then(|documents| documents.found.clone()),
            })
            .collect();
        let mut by_priority: Vec<&Arc<Backend>> = table.iter().collect();
        by_priority.sort_by_key(|backend| (-backend.group_priority, -backend.version_priority, backend.name.clone()));
        let specs = by_priority.into_iter().filter_map(|backend| documents.get(&backend.name)?.spec.clone()).collect();
        self.inner.published.publish(versions, specs);
    }

    /// Follows APIServices, Services and their endpoints, until `stop`.
    async fn watch(self, stop: CancellationToken) {
        let mut reflector = Reflector::new(self.inner.store.clone(), [RESOURCE, SERVICES, SLICES]);
        while let Some(update) = stop.run_until_cancelled(reflector.next()).await {
            match update {
                StoreUpdate::Listed(snapshot) => {
                    self.refresh(&snapshot);
                    for backend in self.inner.table.load().iter() {
                        self.inner.checks.add(backend.name.clone());
                    }
                }
                StoreUpdate::Changed(events) => self.take(&events),
            }
        }
    }

    /// Enqueues the backends that changes concern: their APIServices, or the Services that they stand behind.
    fn take(&self, events: &[Arc<Event>]) {
        if events.iter().any(|event| *event.key.resource == *RESOURCE) {
            self.refresh(&self.store().snapshot());
        }
        let table = self.inner.table.load();
        for event in events {
            let header = event.object.header();
            let service = match &*event.key.resource {
                SERVICES => header.name(),
                SLICES => header.label("kubernetes.io/service-name").unwrap_or_default(),
                _ => {
                    // Somebody may have written another condition.
                    self.inner.checks.add(event.key.name.to_string());
                    continue;
                }
            };
            for backend in table.behind(header.namespace(), service) {
                self.inner.checks.add(backend.name.clone());
            }
        }
    }

    /// Writes whether a backend is available.
    async fn check(&self, client: &Client, name: &str) -> Result<Outcome, Failure> {
        let Some(backend) = self.inner.table.load().named(name).cloned() else {
            self.inner.failures.forget(name);
            return Ok(Outcome::Done);
        };
        let found = self.availability(&backend).await;
        let wait = self.inner.failures.count(name, &found);
        let stored = self.store().snapshot().get(RESOURCE, name).cloned();
        let stored: Option<Value> = stored.and_then(|object| serde_json::from_slice(&object.json()).ok());
        if let Some(object) = stored.filter(|stored| stored["spec"]["service"].is_object())
            && let Some(changed) = found.put_into(&object)
            && self.inner.failures.tell_now(name, &found, &object, Instant::now())
        {
            tracing::info!(name, status = found.status, reason = found.reason, message = found.message, "availability");
            write_status(client, name, &changed).await?;
        }
        Ok(Outcome::After(wait))
    }

    /// Asks a backend what it serves.
    async fn refresh_documents(&self, name: &str) -> Outcome {
        let Some(backend) = self.inner.table.load().named(name).cloned() else { return Outcome::Done };
        let known = self.inner.documents.lock().get(name).cloned().unwrap_or_default();
        let fetched = Documents::fetch(self, &backend, known).await;
        self.publish(|documents| {
            documents.insert(name.to_owned(), fetched);
        });
        Outcome::After(documents::REFRESH)
    }
}

async fn write_status(client: &Client, name: &str, object: &Value) -> Result<(), Failure> {
    let malformed = |error: http::Error| Failure::Malformed { what: "APIService", message: error.to_string() };
    let request = Request::put(format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}/status"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(object.to_string().into_bytes())
        .map_err(malformed)?;
    match client.request::<IgnoredAny>(request).await {
        Ok(_) => Ok(()),
        // Somebody else was faster: that is a change which enqueues it.
        Err(error) if matches!(api_code(&error), Some(404 | 409)) => Ok(()),
        Err(error) => Err(Failure::request("say whether an APIService is available")(error)),
    }
}
