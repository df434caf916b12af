//! Follows the objects of flow control: what they say is in force at once, seats are adjusted to what levels could use,
//! and each FlowSchema's status says whether its level is there.
//!
//! Two tasks: what decides over requests must not wait for a disk that conditions are written to. Specifications are
//! kept by `bootstrap` alone, the condition `Dangling` by [`write_conditions`] alone.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    FlowControl,
    configuration::{DANGLING, DanglingCondition, FlowControlSpec, RESOURCES},
};
use crate::{kinds::flowcontrol::GROUP, reflector::Reflector, rfc3339, store::Store};

/// How often seats are adjusted, as in Kubernetes.
const ADJUST_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at conditions: somebody who keeps changing them has them written again no more often.
const CONDITIONS_EVERY: Duration = Duration::from_secs(1);
/// Between two tries where a condition could not be written.
const RETRY: Duration = Duration::from_secs(30);
/// Whom the condition's fields belong to, as in Kubernetes.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Keeps `control` as the objects of `store` say, until `stop`.
pub async fn run(control: FlowControl, store: Arc<dyn Store>, stop: CancellationToken) {
    let mut reflector = Reflector::new(store.clone(), RESOURCES);
    let mut adjustments = tokio::time::interval(ADJUST_EVERY);
    adjustments.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one is over at once.
    adjustments.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = adjustments.tick() => control.adjust(),
            // They are few, and depend on one another: all are read again.
            _ = reflector.next() => control.configure(FlowControlSpec::of(&store.snapshot())),
        }
    }
}

/// Has each FlowSchema's status say whether its level is there, until `stop`.
pub async fn write_conditions(store: Arc<dyn Store>, client: Client, stop: CancellationToken) {
    let mut reflector = Reflector::new(store.clone(), RESOURCES);
    let keep = async {
        loop {
            reflector.next().await;
            while !write_stale(&store, &client).await {
                tokio::time::sleep(RETRY).await;
            }
            tokio::time::sleep(CONDITIONS_EVERY).await;
        }
    };
    let done: Option<std::convert::Infallible> = stop.run_until_cancelled(keep).await;
    debug_assert!(done.is_none(), "it goes on until it is stopped");
}

/// Writes the conditions that are not as they should be; whether all could be.
async fn write_stale(store: &Arc<dyn Store>, client: &Client) -> bool {
    let resource = ApiResource {
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{GROUP}/v1"),
        kind: "FlowSchema".to_owned(),
        plural: "flowschemas".to_owned(),
    };
    let schemas: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    for condition in FlowControlSpec::of(&store.snapshot()).stale_conditions {
        match write_condition(&schemas, &condition).await {
            Ok(()) => {}
            // It was deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, schema = condition.schema, "cannot write the condition of a FlowSchema");
                return false;
            }
        }
    }
    true
}

async fn write_condition(schemas: &Api<DynamicObject>, condition: &DanglingCondition) -> Result<(), kube::Error> {
    let said = json!({"type": DANGLING, "status": condition.status(), "reason": condition.reason(),
        "message": condition.message(), "lastTransitionTime": rfc3339::now()});
    let schema = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema",
        "metadata": {"name": condition.schema}, "status": {"conditions": [said]}});
    let params = PatchParams::apply(MANAGER).force();
    schemas.patch_status(&condition.schema, &params, &Patch::Apply(&schema)).await.map(drop)
}
