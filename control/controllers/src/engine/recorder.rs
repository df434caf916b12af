//! The Events of controllers and scheduler: which objects they are about, and how fast they are written.

use fairlead_client::recorder::{self, Rate};
pub use fairlead_client::recorder::{EventType, Recorder};
use futures::FutureExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};

use super::Tasks;

/// Recording a thousand new pods must not slow the next thousand.
const RATE: Rate = Rate { burst: 500.0, per_second: 300.0 };

/// A recorder whose writer is one of `tasks`.
pub fn start_recorder(client: Client, tasks: &Tasks) -> Recorder {
    let (recorder, writer) = recorder::recorder(client, None, RATE);
    tasks.spawn("event-recorder", move |stop| writer.clone().run(stop).boxed());
    recorder
}

/// Points at `object` as an Event does.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}
