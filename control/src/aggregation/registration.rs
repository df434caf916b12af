//! APIServices of this server's own groups: those of custom resources are kept as they must be at all times, those of
//! built-in groups are made at the start (by the bootstrap) and are removed there if they are no longer served.
//!
//! Which are kept is said by a label; one without it is never touched.
//!
//! Source: `autoregister_controller.go` of kube-aggregator, `crdregistration_controller.go` of kube-apiserver.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::FutureExt;
use http::{Request, header};
use kube::Client;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::backend::RESOURCE;
use crate::{
    engine::api_code,
    kinds::{Kinds, Registry, api_service, group_priority},
    store::{Snapshot, Store},
};

const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
/// Value of the label for what is kept at all times.
const ALWAYS: &str = "true";
/// Value of the label for what is made at the start.
const AT_START: &str = "onstart";
/// How soon a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Priorities of the groups of custom resources.
pub const CUSTOM: group_priority::Priority = group_priority::Priority { group: 1_000, version: 100 };

/// What has to be done to one APIService.
#[derive(Clone, Debug, PartialEq)]
enum Repair {
    Create(Value),
    Replace(Value),
    /// The object with this UID: another of the name is left alone.
    Delete {
        name: String,
        uid: String,
    },
}

/// Keeps the APIServices, until `stop`.
pub async fn run(store: Arc<dyn Store>, kinds: Registry, client: Client, stop: CancellationToken) {
    let mut changed = kinds.subscribe();
    let mut at_start = true;
    loop {
        changed.mark_unchanged();
        let snapshot = store.snapshot();
        let watch = store.watch(RESOURCE, snapshot.revision);
        let mut failed = false;
        for repair in repairs(&snapshot, &kinds.snapshot(), at_start) {
            failed |= carry_out(&client, repair).await;
        }
        at_start &= failed;
        let next = async {
            match watch {
                Ok(mut watch) if !failed => {
                    let event = watch.next().map(drop);
                    let kinds = changed.changed().map(drop);
                    tokio::select! { () = event => {}, () = kinds => {} }
                }
                _ => tokio::time::sleep(RETRY).await,
            }
        };
        if stop.run_until_cancelled(next).await.is_none() {
            return;
        }
    }
}

/// The APIServices of custom resources, by name.
fn wanted(kinds: &Kinds) -> BTreeMap<String, Value> {
    let custom = kinds.iter().filter(|kind| kind.custom.is_some());
    let custom = custom.filter(|kind| group_priority::built_in(&kind.group, &kind.version).is_none());
    custom
        .map(|kind| {
            let mut object = api_service::local(&kind.group, &kind.version, CUSTOM);
            object["metadata"]["labels"][api_service::AUTO_MANAGED] = ALWAYS.into();
            (format!("{}.{}", kind.version, kind.group), object)
        })
        .collect()
}

fn repairs(snapshot: &Snapshot, kinds: &Kinds, at_start: bool) -> Vec<Repair> {
    let mut wanted = wanted(kinds);
    let mut repairs = Vec::new();
    for (name, object) in snapshot.list(RESOURCE, "", None) {
        let label = object.header.labels.iter().find(|(key, _)| &**key == api_service::AUTO_MANAGED);
        let label = label.map(|(_, value)| &**value).unwrap_or_default();
        let wanted = wanted.remove(&**name);
        let managed = match label {
            ALWAYS => !is_built_in(name, kinds),
            AT_START => at_start && !is_built_in(name, kinds),
            _ => false,
        };
        if object.header.deleting || !managed {
            continue;
        }
        let Ok(current) = serde_json::from_slice::<Value>(object.json()) else { continue };
        match wanted {
            None => repairs.push(Repair::Delete {
                name: name.to_string(),
                uid: current["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            }),
            Some(wanted) if current["spec"] != wanted["spec"] => {
                let mut repaired = current;
                repaired["spec"] = wanted["spec"].clone();
                repairs.push(Repair::Replace(repaired));
            }
            Some(_) => {}
        }
    }
    repairs.extend(wanted.into_values().map(Repair::Create));
    repairs
}

/// Whether an APIService is one that the bootstrap makes.
fn is_built_in(name: &str, kinds: &Kinds) -> bool {
    let Some((version, group)) = name.split_once('.') else { return false };
    group_priority::built_in(group, version).is_some() && kinds.serves_version(group, version)
}

/// Answers whether it failed and is to be tried again: not where somebody else was faster, which is a change of its
/// own.
async fn carry_out(client: &Client, repair: Repair) -> bool {
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (request, object) = match repair {
        Repair::Create(object) => (Request::post(PATH), object),
        Repair::Replace(object) => (Request::put(format!("{PATH}/{}", name(&object))), object),
        Repair::Delete { name, uid } => {
            (Request::delete(format!("{PATH}/{name}")), json!({"preconditions": {"uid": uid}}))
        }
    };
    let request = request.header(header::CONTENT_TYPE, "application/json").body(object.to_string().into_bytes());
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot make a request");
            return false;
        }
    };
    match client.request::<IgnoredAny>(request).await {
        Ok(_) => false,
        Err(error) if matches!(api_code(&error), Some(404 | 409)) => false,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "an APIService could not be kept");
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        encode,
        store::{EventType, Key, Object},
    };

    fn repairs_of(objects: &[Value], at_start: bool) -> Vec<Repair> {
        let mut snapshot = Snapshot::default();
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap();
            let stored = Object::new(encode::unserved(object), 1, EventType::Added);
            snapshot.load(Key { resource: RESOURCE.into(), name: name.into() }, Arc::new(stored));
        }
        repairs(&snapshot, &Kinds::built_in(), at_start)
    }

    fn labelled(group: &str, label: &str) -> Value {
        let mut object = api_service::local(group, "v1", CUSTOM);
        object["metadata"]["labels"][api_service::AUTO_MANAGED] = label.into();
        object["metadata"]["uid"] = "u".into();
        object
    }

    #[test]
    fn what_is_served_no_more_is_deleted_if_it_was_made_here() {
        let delete = |name: &str| vec![Repair::Delete { name: name.into(), uid: "u".into() }];
        assert_eq!(repairs_of(&[labelled("a.io", ALWAYS)], false), delete("v1.a.io"));
        assert_eq!(repairs_of(&[labelled("a.io", AT_START)], true), delete("v1.a.io"));
        assert_eq!(repairs_of(&[labelled("a.io", AT_START)], false), []);
        assert_eq!(repairs_of(&[labelled("a.io", "false")], true), [], "somebody else's");
        assert_eq!(repairs_of(&[labelled("apps", ALWAYS), labelled("batch", AT_START)], true), []);
    }
}
