//! The Kubernetes API machinery, written once for all kinds.
//!
//! A request is taken apart in `request`, answered by `read`, `write` or `subresource`, and refused with a [`Status`]. What a kind
//! is comes from `kinds`, what the cluster allows from `admission`; who may ask was settled before the request came here.

pub mod discovery;
mod dispatch;
mod health;
pub mod node_proxy;
pub mod openapi;
pub mod patch;
pub mod protobuf;
mod read;
mod request;
mod response;
mod review;
mod selector;
pub mod status;
pub mod subresource;
#[cfg(test)]
mod tests;
mod write;

use std::{path::Path, sync::Arc};

use axum::{Router, body::Body};
use tower::ServiceExt;

pub use status::{Status, Subject};

use self::request::path::Target;
use crate::{
    admission::Admission,
    auth::Identity,
    kinds::{Derived, Kind, Registry},
    store::{self, Embedded, Key, Store},
};

/// The API over a store. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    kinds: Registry,
    admission: Admission,
    discovery: Derived<discovery::Discovery>,
    openapi: Derived<openapi::OpenApi>,
}

/// Where a request's object is kept.
struct Place {
    /// The stored kind, which is another than the served one for superseded versions.
    kind: Arc<Kind>,
    /// `pods`, `deployments.apps`
    resource: Arc<str>,
    /// `namespace/name`, or `name`.
    key: Arc<str>,
}

impl Place {
    fn key(&self) -> Key {
        Key { resource: self.resource.clone(), name: self.key.clone() }
    }

    fn subject<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject { group: &self.kind.group, resource: &self.kind.plural, name }
    }
}

/// Opens the embedded store of an API's objects in the file `path`.
pub fn open_store(path: &Path, kinds: &Registry) -> Result<Embedded, store::OpenError> {
    let kinds = kinds.snapshot();
    Embedded::open(path, &|resource, _, json| write::encode::stored(&kinds, resource, json))
}

impl Api {
    /// `server_address` is where `/api` says that the server is: `10.0.0.1:6443`. Tells `admission` which addresses and ports
    /// the stored Services hold.
    pub fn new(store: Arc<dyn Store>, kinds: Registry, admission: Admission, server_address: &str) -> Self {
        let snapshot = store.snapshot();
        let services: Vec<serde_json::Value> =
            snapshot.list("services", "", None).filter_map(|(_, o)| serde_json::from_slice(o.json()).ok()).collect();
        admission.restore(&services);
        let address = server_address.to_owned();
        let discovery = Derived::new(kinds.clone(), move |kinds| discovery::Discovery::of(&kinds, &address));
        let openapi = Derived::new(kinds.clone(), openapi::OpenApi::new);
        Self { inner: Arc::new(Inner { store, kinds, admission, discovery, openapi }) }
    }

    /// Serves everything under `/api`, `/apis`, `/openapi` and the health and version paths. Reads the caller's [`Identity`] from
    /// the request's extensions.
    pub fn router(&self) -> Router {
        let api = self.clone();
        Router::new().fallback(move |request: axum::extract::Request| {
            let api = api.clone();
            async move { dispatch::answer(&api, request).await }
        })
    }

    /// The served kinds, which may change while the API runs.
    pub fn kinds(&self) -> &Registry {
        &self.inner.kinds
    }

    /// A client in process that acts as `identity`: same handlers, same admission, no socket.
    pub fn client(&self, identity: Identity) -> kube::Client {
        let router = self.router();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(identity.clone());
            router.clone().oneshot(request)
        });
        kube::Client::new(service, "default")
    }

    fn store(&self) -> &dyn Store {
        &*self.inner.store
    }

    fn store_handle(&self) -> Arc<dyn Store> {
        self.inner.store.clone()
    }

    fn admission(&self) -> &Admission {
        &self.inner.admission
    }

    /// Where the objects of a request's resource are kept; the key is the namespace's, if any.
    fn resource(&self, target: &Target) -> Result<Place, Status> {
        let kind = target.kind.stored().ok_or_else(|| {
            Status::method_not_allowed(Subject { group: &target.kind.group, resource: &target.kind.plural, name: "" })
        })?;
        Ok(Place { kind: kind.clone(), resource: kind.resource().into(), key: read::prefix(target).into() })
    }

    /// Where a request's object is kept.
    fn place(&self, target: &Target) -> Result<Place, Status> {
        let mut place = self.resource(target)?;
        let name = target.name.as_deref().unwrap_or_default();
        place.key = format!("{}{name}", place.key).into();
        Ok(place)
    }
}
