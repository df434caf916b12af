//! Reads of ComponentStatuses: each is made from a health check of the part that has the name in Kubernetes.

use std::sync::Arc;

use axum::response::Response;
use serde_json::json;

use super::{Api, Status, StorageLocation, Subject, read, request::Call};
use crate::{
    encode,
    health::Health,
    kinds::Kind,
    store::{EventType, Key, Object, Snapshot},
};

/// The component and the check that tells of it. The store is this service's etcd.
const COMPONENTS: [(&str, &str); 3] =
    [("controller-manager", "controller-manager"), ("etcd-0", "store"), ("scheduler", "scheduler")];

/// `GET` of one, or of all of them.
pub async fn answer(api: &Api, call: &Call) -> Result<Response, Status> {
    let kind = &call.target.kind;
    let mut snapshot = made(api.health(), kind);
    snapshot.revision = api.store().snapshot().revision;
    let resource: Arc<str> = kind.resource().into();
    match call.target.name.as_deref() {
        None => {
            let place = StorageLocation { kind: kind.clone(), group: kind.group.clone(), resource, key: "".into() };
            read::list_computed(call, &snapshot, &place).await
        }
        Some(name) => {
            let subject = Subject { group: "", resource: "componentstatus", name };
            let object = snapshot.get(&resource, name).ok_or_else(|| Status::not_found(subject))?;
            read::get_computed(call, object)
        }
    }
}

/// All components that run in this process.
fn made(health: &Health, kind: &Kind) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let resource: Arc<str> = kind.resource().into();
    for (name, check) in COMPONENTS {
        let Some(outcome) = health.ask_one(check) else { continue };
        let (status, message) = match outcome {
            Ok(_) => ("True", "ok".to_owned()),
            Err(why) => ("False", why.to_string()),
        };
        let object = json!({"metadata": {"name": name},
            "conditions": [{"type": "Healthy", "status": status, "message": message}]});
        let object = Object::new(encode::draft(kind, &object), 0, EventType::Added);
        snapshot.load(Key { resource: resource.clone(), name: name.into() }, Arc::new(object));
    }
    snapshot
}
