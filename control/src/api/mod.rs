//! The Kubernetes API machinery, written once for all kinds.
//!
//! A request is taken apart in `request`, answered by `read`, `write` or `subresource`, and refused with a [`Status`].
//! What a kind is comes from `kinds`, what the cluster allows from `admission`; who may ask was settled before the
//! request came here.

mod audited_answer;
mod component_status;
pub mod discovery;
mod dispatch;
mod documents;
mod health;
pub mod node_proxy;
mod object_proxy;
pub mod openapi;
mod piecewise;
mod pretty;
pub mod protobuf;
mod read;
mod request;
mod response;
mod review;
pub mod subresource;
#[cfg(test)]
pub(crate) mod tests;
mod write;

use std::{
    borrow::Cow,
    fs::Metadata,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, OnceLock},
};

use axum::body::Body;
use fairlead_serving::guarded_body::GuardedBody;
use http::{HeaderValue, Request, Response, header};
use tokio_util::task::TaskTracker;

use self::{node_proxy::NodeProxy, request::target::RequestTarget};
pub use crate::status::{Status, Subject};
use crate::{
    admission::{Admission, ServedKinds},
    admission_plugins::AdmissionPlugins,
    aggregation::{Aggregator, Published},
    allocation::Allocator,
    audit::{Audit, current},
    auth::{audited, authenticate::Authenticator, authorizer::Authorizer, gate::Handler},
    encode,
    flow_control::FlowControl,
    health::{CheckFailure, CheckResult, Health, HealthEndpoint},
    identity::Identity,
    kinds::{Derived, Kind, Registry},
    metrics::Metrics,
    request::{InProcess, RequestInfo, audit_id::AuditId, path::ResourcePath},
    store::{self, DamagedBases, Decode, Draft, Embedded, Key, Store, seal::Seal},
    webhook::{Dial, Network},
};

/// How clients in process name themselves.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("fairlead/", env!("CARGO_PKG_VERSION")));

/// The API over a store. Cheap to clone. Serves everything under `/api`, `/apis`, `/openapi` and the health and version
/// paths.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    kinds: Registry,
    admission: Admission,
    authorizer: Authorizer,
    authenticator: OnceLock<Authenticator>,
    allocator: Allocator,
    discovery: Derived<discovery::Discovery>,
    openapi: Derived<openapi::OpenApi>,
    metrics: Metrics,
    health: Health,
    /// Sends requests to the nodes' agents.
    nodes: OnceLock<NodeProxy>,
    /// Sends requests to extension API servers.
    aggregator: OnceLock<Aggregator>,
    /// Makes events of requests from within this process; of all others the gate has them made.
    audit: OnceLock<Audit>,
    /// Tells what it does; the gate asks it.
    flow_control: OnceLock<FlowControl>,
    /// What extension API servers serve.
    published: Published,
    /// Write requests in progress. Each runs to completion even when its client has disconnected.
    writes: TaskTracker,
}

/// Where a request's object is kept.
struct StorageLocation {
    /// The stored kind, which is another than the served one for superseded versions.
    kind: Arc<Kind>,
    /// Group of the served kind, which answers name.
    group: Cow<'static, str>,
    /// `pods`, `deployments.apps`
    resource: Arc<str>,
    /// `namespace/name`, or `name`.
    key: Arc<str>,
}

impl StorageLocation {
    fn key(&self) -> Key {
        Key { resource: self.resource.clone(), name: self.key.clone() }
    }

    fn subject<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject { group: &self.group, resource: &self.kind.plural, name }
    }
}

/// Opens the embedded store of an API's objects in the file `path`.
pub fn open_store(path: &Path, kinds: &Registry) -> Result<Embedded, store::OpenError> {
    open_sealed_store(path, kinds, DamagedBases::Refuse, None)
}

/// The same, of a file whose damage may reach many objects, and whose values may be encrypted.
pub fn open_sealed_store(
    path: &Path,
    kinds: &Registry,
    damaged_bases: DamagedBases,
    seal: Option<Arc<dyn Seal>>,
) -> Result<Embedded, store::OpenError> {
    let stored = StoredObjects { kinds: kinds.clone(), program: program_mark() };
    Embedded::open_sealed(path, stored, damaged_bases, seal)
}

/// Reads objects back from disk. As the kinds are when it is asked: of a restart's history, that is when the first
/// watch of a resource comes.
struct StoredObjects {
    kinds: Registry,
    program: Option<u64>,
}

impl Decode for StoredObjects {
    fn decode(&self, resource: &str, _: &str, json: &[u8]) -> Result<Draft, serde_json::Error> {
        encode::stored(&self.kinds.snapshot(), resource, json)
    }

    /// The header of a custom resource follows from its definition, too, which may change.
    fn mark(&self, resource: &str) -> Option<u64> {
        self.program.filter(|_| self.kinds.snapshot().by_resource(resource).is_some_and(|kind| kind.custom.is_none()))
    }
}

/// A number of this program's file: another version or build has another one. Nothing where the file is unknown.
fn program_mark() -> Option<u64> {
    let file = std::env::current_exe().and_then(std::fs::metadata).ok()?;
    Some(mark_of(&file))
}

/// Archives may give all builds one time of modification, and two builds may have one size: the time of the inode's
/// last change is set by the kernel alone.
fn mark_of(file: &Metadata) -> u64 {
    let mut hasher = DefaultHasher::new();
    let modified = (file.mtime(), file.mtime_nsec());
    (env!("CARGO_PKG_VERSION"), file.len(), modified, file.ctime(), file.ctime_nsec(), file.ino()).hash(&mut hasher);
    hasher.finish()
}

impl Api {
    /// `server_address` is where `/api` says that the server is: `10.0.0.1:6443`. Services get their addresses and
    /// ports from `allocator`.
    pub fn new(store: Arc<dyn Store>, kinds: Registry, allocator: Allocator, server_address: &str) -> Self {
        let plugins = AdmissionPlugins::default();
        Self::in_network(store, kinds, allocator, server_address, Arc::new(Network), &plugins)
    }

    /// The same, with webhooks that are called over `network`, and with these admission plugins.
    pub fn in_network(
        store: Arc<dyn Store>,
        kinds: Registry,
        allocator: Allocator,
        server_address: &str,
        network: Arc<dyn Dial>,
        plugins: &AdmissionPlugins,
    ) -> Self {
        let address = server_address.to_owned();
        let published = Published::default();
        let served = ServedKinds { here: kinds.clone(), elsewhere: published.clone() };
        let admission = Admission::serving(served, store.clone(), network, plugins);
        let discovery = {
            let (told, of) = (published.clone(), published.clone());
            Derived::beside(
                kinds.clone(),
                move || told.generation(),
                move |kinds| discovery::Discovery::of(&kinds, &of.versions(), &address),
            )
        };
        let openapi = {
            let (told, of) = (published.clone(), published.clone());
            let make = move |kinds| openapi::OpenApi::new(kinds, of.specs());
            Derived::beside(kinds.clone(), move || told.spec_generation(), make)
        };
        let (metrics, health) = (Metrics::default(), Health::default());
        watch_store(&store, &metrics, &health);
        let told = admission.clone();
        metrics.add(move |scrape| told.tell(scrape));
        let authorizer = Authorizer::new(store.clone());
        let (nodes, aggregator, audit) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (flow_control, authenticator) = (OnceLock::new(), OnceLock::new());
        let writes = TaskTracker::new();
        Self {
            inner: Arc::new(Inner {
                store,
                kinds,
                admission,
                authorizer,
                authenticator,
                allocator,
                discovery,
                openapi,
                metrics,
                health,
                nodes,
                aggregator,
                audit,
                flow_control,
                published,
                writes,
            }),
        }
    }

    /// The served kinds, which may change while the API runs.
    pub fn kinds(&self) -> &Registry {
        &self.inner.kinds
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Who may do what.
    pub fn authorizer(&self) -> &Authorizer {
        &self.inner.authorizer
    }

    /// Who tells whose token it is.
    pub(crate) fn authenticator(&self) -> &Authenticator {
        self.inner.authenticator.get_or_init(|| Authenticator::new(&self.inner.authorizer))
    }

    /// What `/readyz` and its like ask.
    pub(crate) fn health(&self) -> &Health {
        &self.inner.health
    }

    /// A client in process that acts as `identity`: same handlers, same admission, no socket. Objects come to it
    /// without `metadata.managedFields`.
    pub fn client(&self, identity: Identity) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |mut request: Request<kube::client::Body>| {
            // Whom the fields belong to that it writes.
            request.headers_mut().entry(header::USER_AGENT).or_insert(USER_AGENT);
            request.extensions_mut().insert(InProcess);
            let (api, identity) = (api.clone(), identity.clone());
            async move { Ok::<_, std::convert::Infallible>(api.answer_as(identity, request.map(Body::new)).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Answers a request of `identity`, which may do what it asks.
    pub async fn answer_as(&self, identity: Identity, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mut info = match RequestInfo::of(&parts) {
            Ok(info) => info,
            Err(status) => return response::refusal(&status),
        };
        let begun = self.inner.audit.get().and_then(|audit| {
            audited::begin(audit, (&parts, &AuditId::of(&parts.headers)), Some(&info), Some(&identity))
        });
        info.user = Some(identity);
        let Some(audited) = begun else { return self.answer(info, Request::from_parts(parts, body)).await };
        let audited = audited.lasting(self.is_long_running(&info));
        if let Err(status) = audited.received(true).await {
            return response::refusal(&status);
        }
        let handled = async {
            current::annotate("authorization.k8s.io/decision", || "allow".to_owned());
            current::annotate("authorization.k8s.io/reason", String::new);
            self.answer(info, Request::from_parts(parts, body)).await
        };
        let response = audited.scope(handled).await;
        audited.answered(response).await
    }

    /// Has logs of pods and proxies of nodes answered through `nodes`. Said once, before anything is served.
    pub fn reach_nodes_through(&self, nodes: NodeProxy) {
        if self.inner.nodes.set(nodes).is_err() {
            tracing::error!("the way to the nodes was set before; the first one stays");
        }
    }

    /// What extension API servers serve: discovery and OpenAPI show it.
    pub(crate) fn published(&self) -> &Published {
        &self.inner.published
    }

    /// Has requests about groups of extension API servers answered through `aggregator`. Said once, before anything is
    /// served.
    pub(crate) fn aggregate_through(&self, aggregator: Aggregator) {
        if self.inner.aggregator.set(aggregator).is_err() {
            tracing::error!("the way to extension servers was set before; the first one stays");
        }
    }

    /// Has others tell whose token it is. Said once, before anything is served.
    pub(crate) fn authenticate_by(&self, authenticator: Authenticator) {
        if self.inner.authenticator.set(authenticator).is_err() {
            tracing::error!("who authenticates was set before; the first one stays");
        }
    }

    /// Has requests from within this process audited. Said once, before anything is served.
    pub(crate) fn audit_through(&self, audit: Audit) {
        if self.inner.audit.set(audit).is_err() {
            tracing::error!("auditing was set up before; the first one stays");
        }
    }

    /// Has the pages about priority and fairness, and its metrics, tell of `control`. Said once, before anything is
    /// served.
    pub(crate) fn tell_of_flow_control(&self, control: FlowControl) {
        let told = control.clone();
        match self.inner.flow_control.set(control) {
            Ok(()) => self.inner.metrics.add(move |scrape| told.tell(scrape)),
            Err(_) => tracing::error!("priority and fairness was set up before; the first one stays"),
        }
    }

    /// Has mutating policies evaluated from now on, as the feature gate `MutatingAdmissionPolicy` says.
    pub(crate) fn evaluate_mutating_policies(&self) {
        self.inner.admission.evaluate_mutating_policies();
    }

    /// Returns when every write under way has ended. New ones are still taken: their senders must have been stopped
    /// before.
    pub async fn drain(&self) {
        self.inner.writes.close();
        self.inner.writes.wait().await;
    }

    /// Whether a path names a resource, and a subresource of it, that are served.
    fn serves(&self, path: &ResourcePath) -> bool {
        let kind = self.inner.kinds.snapshot().by_path(&path.group, &path.version, &path.resource);
        kind.is_some_and(|kind| path.subresource.as_deref().is_none_or(|segment| kind.has(segment)))
    }

    fn store(&self) -> &dyn Store {
        &*self.inner.store
    }

    pub(crate) fn store_handle(&self) -> Arc<dyn Store> {
        self.inner.store.clone()
    }

    fn admission(&self) -> &Admission {
        &self.inner.admission
    }

    fn allocator(&self) -> &Allocator {
        &self.inner.allocator
    }

    /// Where the objects of a request's resource are kept; the key is the namespace's, if any.
    fn resource(&self, target: &RequestTarget) -> Result<StorageLocation, Status> {
        let kind = target.kind.stored().ok_or_else(|| {
            Status::method_not_allowed(Subject { group: &target.kind.group, resource: &target.kind.plural, name: "" })
        })?;
        let (group, resource) = (target.kind.group.clone(), kind.resource().into());
        Ok(StorageLocation { kind: kind.clone(), group, resource, key: read::prefix(target).into() })
    }

    /// Where a request's object is kept.
    fn place(&self, target: &RequestTarget) -> Result<StorageLocation, Status> {
        let mut place = self.resource(target)?;
        let name = target.name.as_deref().unwrap_or_default();
        place.key = format!("{}{name}", place.key).into();
        Ok(place)
    }
}

/// Has metrics and health tell of the store.
fn watch_store(store: &Arc<dyn Store>, metrics: &Metrics, health: &Health) {
    let told = store.clone();
    metrics.add(move |scrape| crate::metrics::tell_store(scrape, &told.stats()));
    let checked = store.clone();
    health.add("store", &[HealthEndpoint::Ready, HealthEndpoint::Healthy], move || check_store(&checked.stats()));
    let checked = store.clone();
    health.add("store-open", &[HealthEndpoint::Live], move || check_open(&checked.stats()));
}

/// Whether writes work, as far as the last one told. Causes stay in the log: they may name a path.
fn check_store(stats: &store::Stats) -> CheckResult {
    stats.check().map(|()| String::new()).map_err(|fault| CheckFailure::new(fault.to_string()))
}

/// Whether writes can ever work again in this process. What a failed commit closed for good is open after a restart; a
/// disk that is full or does not answer is not mended by one.
fn check_open(stats: &store::Stats) -> CheckResult {
    match stats.closed {
        true => Err(CheckFailure::new(store::StoreFault::Closed.to_string())),
        false => Ok(String::new()),
    }
}

#[async_trait::async_trait]
impl Handler for Api {
    fn is_long_running(&self, info: &RequestInfo) -> bool {
        subresource::is_long_running(info)
    }

    async fn answer(&self, info: RequestInfo, request: Request<Body>) -> Response<Body> {
        let long_running = self.is_long_running(&info);
        let running = self.inner.metrics.requests().begin(&info, long_running, |path| self.serves(path));
        let response = dispatch::answer(self, info, request).await;
        running.answered(response.status().as_u16());
        match running.is_long_running() {
            true => response.map(|body| Body::new(GuardedBody::new(body, running))),
            false => response,
        }
    }
}
