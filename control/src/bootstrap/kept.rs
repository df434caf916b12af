//! Default objects that are known as data: each is created where it is missing, and repaired by a rule of its own.

use futures::{StreamExt, stream};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams},
};
use serde_json::{Value, json};

use super::BootstrapError;
use crate::{
    Config,
    kinds::{Kinds, api_service, group_priority},
    rfc3339,
};

/// How many objects are looked at or written at a time: their writes share the store's syncs.
const AT_A_TIME: usize = 64;

/// What has to be done to a stored object.
#[derive(Clone, Debug, PartialEq)]
pub enum BootstrapRepair {
    /// It is as it should be.
    Nothing,
    /// It becomes this.
    Replace(Value),
    /// It is deleted and created.
    Recreate,
}

/// A default object, and what is to be done if it is there already.
pub struct KeptObject {
    /// As it is made.
    pub object: Value,
    /// What is to be done.
    pub repair: fn(stored: &Value, wanted: &Value) -> BootstrapRepair,
}

/// Creates and repairs all of them.
pub async fn ensure(client: &Client, config: &Config) -> Result<(), BootstrapError> {
    let rbac = super::rbac::objects().into_iter().map(|object| KeptObject { object, repair: super::rbac::reconcile });
    let kinds = Kinds::built_in();
    let is_served =
        |group: &str, version: &str| kinds.iter().any(|kind| kind.group == group && kind.version == version);
    let served = group_priority::all().filter(|(group, version, _)| is_served(group, version));
    let services = served.map(|(group, version, priority)| KeptObject {
        object: api_service::local(group, version, priority),
        repair: repair_api_service,
    });
    let ranges = [KeptObject { object: service_cidr(config), repair: |_, _| BootstrapRepair::Nothing }];
    let tracking = [KeptObject { object: token_tracking(), repair: repair_token_tracking }];
    let all: Vec<KeptObject> =
        rbac.chain(super::flow_control::defaults()).chain(services).chain(ranges).chain(tracking).collect();
    ensure_all(client, all).await
}

/// Creates and repairs these. One that cannot be written keeps no other from it; the first error of all is told.
pub async fn ensure_all(client: &Client, all: Vec<KeptObject>) -> Result<(), BootstrapError> {
    let written = stream::iter(all).map(|kept| ensure_one(client, kept)).buffer_unordered(AT_A_TIME);
    written.fold(Ok(()), async |so_far, written| so_far.and(written)).await
}

async fn ensure_one(client: &Client, KeptObject { object, repair }: KeptObject) -> Result<(), BootstrapError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    let failed = |source: kube::Error| BootstrapError::of(&kind, &name, source);
    let Some(served) = Kinds::built_in().by_api_version(&text(&object["apiVersion"]), &kind) else {
        unreachable!("{kind} is a kind of this program")
    };
    let resource = ApiResource {
        group: served.group.to_string(),
        version: served.version.to_string(),
        api_version: served.api_version(),
        kind: kind.clone(),
        plural: served.plural.to_string(),
    };
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let to_dynamic = |object: Value| serde_json::from_value(object).map_err(kube::Error::SerdeError);
    let params = PostParams::default();
    let written = async {
        let Some(stored) = api.get_opt(&name).await? else {
            return api.create(&params, &to_dynamic(object)?).await.map(drop);
        };
        let stored = serde_json::to_value(&stored).map_err(kube::Error::SerdeError)?;
        match repair(&stored, &object) {
            BootstrapRepair::Nothing => Ok(()),
            BootstrapRepair::Replace(object) => api.replace(&name, &params, &to_dynamic(object)?).await.map(drop),
            BootstrapRepair::Recreate => {
                api.delete(&name, &DeleteParams::default()).await?;
                api.create(&params, &to_dynamic(object)?).await.map(drop)
            }
        }
    };
    written.await.map_err(failed)
}

fn repair_api_service(stored: &Value, wanted: &Value) -> BootstrapRepair {
    let label = |object: &Value| object["metadata"]["labels"][api_service::AUTO_MANAGED].clone();
    if stored["spec"] == wanted["spec"] && label(stored) == label(wanted) {
        return BootstrapRepair::Nothing;
    }
    let mut repaired = stored.clone();
    repaired["spec"] = wanted["spec"].clone();
    repaired["metadata"]["labels"][api_service::AUTO_MANAGED] = label(wanted);
    BootstrapRepair::Replace(repaired)
}

/// The range that the control service was started with.
fn service_cidr(config: &Config) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes", "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
        "spec": {"cidrs": [config.service_cidr.to_string()]},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
            "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": rfc3339::now()}]}})
}

/// Since when the use of tokens in Secrets is tracked: since the cluster began. Clients that clean up unused tokens
/// look for it.
fn token_tracking() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "kube-system", "name": "kube-apiserver-legacy-service-account-token-tracking"},
        "data": {"since": jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()}})
}

/// What it says stays, if it is a day.
fn repair_token_tracking(stored: &Value, wanted: &Value) -> BootstrapRepair {
    let since = stored["data"]["since"].as_str().unwrap_or_default();
    if since.parse::<jiff::civil::Date>().is_ok() {
        return BootstrapRepair::Nothing;
    }
    let mut repaired = stored.clone();
    repaired["data"]["since"] = wanted["data"]["since"].clone();
    BootstrapRepair::Replace(repaired)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{ResourceExt, api::ListParams};

    use super::*;

    #[test]
    fn the_day_since_which_tokens_are_tracked_stays() {
        let wanted = token_tracking();
        let mut stored = wanted.clone();
        stored["data"]["since"] = json!("2020-02-29");
        assert_eq!(repair_token_tracking(&stored, &wanted), BootstrapRepair::Nothing);
        stored["data"] = json!({"since": "ever", "note": "kept"});
        let mut repaired = stored.clone();
        repaired["data"]["since"] = wanted["data"]["since"].clone();
        assert_eq!(repair_token_tracking(&stored, &wanted), BootstrapRepair::Replace(repaired));
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_written_keeps_no_other_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path());
        let client = super::super::tests::client(dir.path(), &config);
        super::super::ensure(&client, &config, None).await.unwrap();
        let map = |name: &str| {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": "default", "name": name}});
            KeptObject { object, repair: |_, _| BootstrapRepair::Nothing }
        };
        // More than are written at a time.
        let good: Vec<String> = (0..2 * AT_A_TIME).map(|number| format!("good-{number}")).collect();
        let all = ["Not_a_name"].into_iter().chain(good.iter().map(String::as_str)).map(map).collect();
        let error = ensure_all(&client, all).await.unwrap_err();
        assert!(error.is_refusal() && error.to_string().contains("Not_a_name"), "{error}");
        let maps: Api<DynamicObject> = Api::namespaced_with(client, "default", &ApiResource::erase::<ConfigMap>(&()));
        let mut stored: Vec<String> =
            maps.list(&ListParams::default()).await.unwrap().items.iter().map(|map| map.name_any()).collect();
        stored.retain(|name| good.contains(name));
        assert_eq!(stored.len(), good.len());
    }

    #[test]
    fn an_api_service_of_this_server_is_local_again() {
        let (group, version, priority) = group_priority::all().next().unwrap();
        let wanted = api_service::local(group, version, priority);
        assert_eq!(repair_api_service(&wanted, &wanted), BootstrapRepair::Nothing);
        let mut other = wanted.clone();
        other["spec"]["service"] = json!({"name": "a", "namespace": "b"});
        assert_eq!(repair_api_service(&other, &wanted), BootstrapRepair::Replace(wanted));
    }
}
