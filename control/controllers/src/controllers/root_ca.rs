//! The cluster's CA certificate as a ConfigMap in every namespace, for pods that talk to the API.

use std::{collections::BTreeMap, sync::Arc};

use fairlead_client::Api;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::Context;
use crate::{
    engine::{Failure, Informer, Key, Outcome, Startup, Tasks, api_code, is_namespace_terminating},
    objects::informers::ROOT_CA,
};

const COMPONENT: &str = "root-ca-publisher";
const FILE: &str = "ca.crt";

struct Controller {
    client: Client,
    namespaces: Arc<Informer<Namespace>>,
    maps: Arc<Informer<ConfigMap>>,
    ca_pem: String,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        namespaces: informers.namespaces.clone(),
        maps: informers.root_cas.clone(),
        ca_pem: context.config.authority.certificate_pem().to_owned(),
    };
    Startup::new(COMPONENT, controller)
        .on_each(&informers.namespaces)
        .on(&informers.root_cas, |_, change, queue| queue.add(Key::cluster(&change.key.namespace)))
        .start(tasks, 2, Controller::reconcile);
}

/// What is missing in a namespace.
#[derive(Debug, PartialEq, Eq)]
enum ConfigMapRepair {
    Create(BTreeMap<String, String>),
    Update(BTreeMap<String, String>),
    Nothing,
}

fn plan(namespace: &Namespace, map: Option<&ConfigMap>, ca_pem: &str) -> ConfigMapRepair {
    let wanted = BTreeMap::from([(FILE.to_owned(), ca_pem.to_owned())]);
    match map {
        _ if is_terminating(namespace) => ConfigMapRepair::Nothing,
        None => ConfigMapRepair::Create(wanted),
        Some(map) if map.data.as_ref() == Some(&wanted) => ConfigMapRepair::Nothing,
        Some(_) => ConfigMapRepair::Update(wanted),
    }
}

/// A namespace that is being deleted takes no new objects.
pub fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
        || namespace.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Terminating")
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(namespace) = self.namespaces.get(&key) else { return Ok(Outcome::Done) };
        let map = self.maps.get(&Key::new(&key.name, ROOT_CA));
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.name);
        let result = match plan(&namespace, map.as_deref(), &self.ca_pem) {
            ConfigMapRepair::Nothing => return Ok(Outcome::Done),
            ConfigMapRepair::Create(data) => {
                let note = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                            endpoints such as the internal service IP or kubernetes.default.svc.";
                let metadata = ObjectMeta {
                    name: Some(ROOT_CA.into()),
                    annotations: Some([("kubernetes.io/description".to_owned(), note.to_owned())].into()),
                    ..Default::default()
                };
                let map = ConfigMap { metadata, data: Some(data), ..Default::default() };
                api.create(&PostParams::default(), &map).await
            }
            ConfigMapRepair::Update(data) => {
                let patch = json!([{"op": "add", "path": "/data", "value": data}]);
                let patch = serde_json::from_value(patch)
                    .map_err(|e| Failure::Malformed { what: "patch", message: e.to_string() })?;
                api.patch(ROOT_CA, &PatchParams::default(), &Patch::<()>::Json(patch)).await
            }
        };
        match result {
            Ok(_) => Ok(Outcome::Done),
            // Deleted or created by another meanwhile: an event will enqueue the namespace again.
            Err(error) if matches!(api_code(&error), Some(404 | 409)) => Ok(Outcome::Done),
            Err(error) if is_namespace_terminating(&error) => Ok(Outcome::Done),
            Err(error) => Err(Failure::request("publish the CA certificate")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_living_namespace_holds_the_certificate_and_nothing_else() {
        let namespace = Namespace::default();
        let wanted = BTreeMap::from([(FILE.to_owned(), "PEM".to_owned())]);
        assert_eq!(plan(&namespace, None, "PEM"), ConfigMapRepair::Create(wanted.clone()));
        let mut map = ConfigMap { data: Some(wanted.clone()), ..Default::default() };
        assert_eq!(plan(&namespace, Some(&map), "PEM"), ConfigMapRepair::Nothing);
        map.data.get_or_insert_default().insert("extra".into(), "x".into());
        assert_eq!(plan(&namespace, Some(&map), "PEM"), ConfigMapRepair::Update(wanted));
        let terminating =
            serde_json::from_value(json!({"status": {"phase": "Terminating"}})).expect("a valid namespace");
        assert_eq!(plan(&terminating, None, "PEM"), ConfigMapRepair::Nothing);
    }
}
