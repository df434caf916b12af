//! Serves what definitions define: names each definition, adds its kinds to the registry, and says so in its status;
//! takes them away again once its objects are deleted.
//!
//! It works on the store and the registry directly, without a delay: kinds must be known before the objects that the
//! store has read are needed ([`load`]), and a definition is established the moment it is written ([`run`]). It never
//! waits for a request: see [`super::requests`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::Client;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{conversion::Webhook, requests::Requests};
use crate::custom::{
    WebhookConversion,
    definition::{Conversion, Definition, FINALIZER, RESOURCE, conditions, naming},
    kinds,
};
use crate::{
    encode,
    kinds::{Kind, Registry},
    reflector::Reflector,
    store::{Object, Snapshot, Store},
    webhook::Dial,
};

/// Serves every definition of the store that was established before. Returns when its objects can be read. Webhooks
/// that convert them are called over `network`.
pub async fn load(store: &Arc<dyn Store>, registry: &Registry, network: &Arc<dyn Dial>) {
    let mut served = ServedDefinitions::new(store.clone(), registry.clone(), network.clone());
    let snapshot = store.snapshot();
    served.refresh(&snapshot, &Requests::new());
    let established: Vec<String> = served
        .read
        .values()
        .filter(|read| read.definition.established)
        .map(|read| read.definition.name.clone())
        .collect();
    for name in established {
        served.serve(&name).await;
    }
}

/// Serves definitions as they come, change and go, until `stop`.
pub async fn run(
    store: Arc<dyn Store>,
    registry: Registry,
    client: Client,
    network: Arc<dyn Dial>,
    stop: CancellationToken,
) {
    let mut served = ServedDefinitions::new(store.clone(), registry, network);
    let requests = Requests::new();
    let sending = requests.clone().run(store.clone(), client, stop.clone());
    let deciding = async {
        let mut reflector = Reflector::new(store.clone(), [RESOURCE]);
        while stop.run_until_cancelled(reflector.next()).await.is_some() {
            let snapshot = store.snapshot();
            served.refresh(&snapshot, &requests);
            served.reconcile(&snapshot, &requests).await;
            // The objects of definitions that are being deleted.
            let terminating = served.terminating();
            reflector.retain(|resource| terminating.iter().any(|one| one == resource));
            terminating.iter().for_each(|resource| reflector.follow_after(resource, &snapshot));
        }
    };
    tokio::join!(sending, deciding);
}

/// A definition as it was read, and what was made of it.
struct Read {
    revision: u64,
    object: Value,
    definition: Definition,
    /// What the kinds in the registry were made from, if they are there.
    made_from: Option<KindSource>,
}

/// Kinds are made anew when one of these changes.
#[derive(PartialEq)]
struct KindSource {
    spec: Value,
    names: crate::custom::definition::Names,
}

struct ServedDefinitions {
    store: Arc<dyn Store>,
    registry: Registry,
    /// What webhooks that convert are called over.
    network: Arc<dyn Dial>,
    /// By name.
    read: BTreeMap<String, Read>,
}

impl ServedDefinitions {
    fn new(store: Arc<dyn Store>, registry: Registry, network: Arc<dyn Dial>) -> Self {
        Self { store, registry, network, read: BTreeMap::new() }
    }

    /// Reads the definitions that have changed; forgets those that are gone, and their kinds.
    fn refresh(&mut self, snapshot: &Snapshot, requests: &Requests) {
        let mut left: BTreeSet<String> = self.read.keys().cloned().collect();
        for (key, object) in snapshot.list(RESOURCE, "", None) {
            left.remove(&**key);
            if self.read.get(&**key).is_some_and(|read| read.revision == object.revision) {
                continue;
            }
            let Some(value) = parse(object) else { continue };
            let made_from = self.read.remove(&**key).and_then(|read| read.made_from);
            let definition = Definition::read(&value);
            let read = Read { revision: object.revision, object: value, definition, made_from };
            self.read.insert(key.to_string(), read);
        }
        for gone in left {
            self.read.remove(&gone);
            self.remove_kinds(&gone);
            requests.write_status(&gone, None);
            requests.delete_objects(&gone, None);
        }
    }

    fn remove_kinds(&self, definition: &str) {
        if let Err(error) = self.registry.replace_custom(definition, Vec::new()) {
            tracing::error!(definition, error = &error as &dyn std::error::Error, "cannot remove kinds");
        }
    }

    /// The resources whose definitions are being deleted.
    fn terminating(&self) -> Vec<String> {
        let deleting = self.read.values().filter(|read| read.definition.deleting);
        deleting.map(|read| format!("{}.{}", read.definition.accepted.plural, read.definition.group)).collect()
    }

    /// Brings every definition one step further.
    async fn reconcile(&mut self, snapshot: &Snapshot, requests: &Requests) {
        // The older definition has the better right to a name.
        let mut names: Vec<(String, String)> = self
            .read
            .values()
            .map(|read| {
                let created = read.object["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
                (created.to_owned(), read.definition.name.clone())
            })
            .collect();
        names.sort();
        for (_, name) in names {
            let (status, deletes) = match self.read.get(&name).is_some_and(|read| read.definition.deleting) {
                true => self.terminate(&name, snapshot).await,
                false => (self.establish(&name).await, false),
            };
            let Some(read) = self.read.get(&name) else { continue };
            requests.write_status(&name, status.filter(|status| *status != read.object));
            let uid = read.object["metadata"]["uid"].as_str().unwrap_or_default();
            requests.delete_objects(&name, deletes.then_some((uid, &read.definition)));
        }
    }

    /// Names a definition and serves it. Answers with what its status must be, unless it cannot be served.
    async fn establish(&mut self, name: &str) -> Option<Value> {
        let read = self.read.get(name)?;
        let others = self.read.values().map(|read| &read.definition);
        let taken = naming::TakenNames::of(&read.definition.group, others);
        let named = naming::name(&read.definition, &taken);
        let status = naming::with_names(&read.object, &named);
        let established = conditions::is_true(&status, "Established");
        if let Some(read) = self.read.get_mut(name) {
            // The next definition must see it before the store does.
            read.definition.accepted = named.names;
        }
        (!established || self.serve(name).await).then_some(status)
    }

    /// Adds a definition's kinds to the registry, if they are not there as they must be. Answers whether they are.
    async fn serve(&mut self, name: &str) -> bool {
        let Some(read) = self.read.get_mut(name) else { return false };
        let made = KindSource { spec: read.object["spec"].clone(), names: read.definition.accepted.clone() };
        if read.made_from.as_ref() == Some(&made) {
            return true;
        }
        let definition = read.definition.clone();
        let webhook = match &definition.conversion {
            Conversion::None => None,
            Conversion::Webhook(config) => {
                let webhook = Webhook::new(&definition, config, self.store.clone(), self.network.clone());
                Some(Arc::new(webhook) as Arc<dyn WebhookConversion>)
            }
        };
        let resource = format!("{}.{}", definition.accepted.plural, definition.group);
        let mixed = is_mixed(&self.store.snapshot(), &resource, &definition);
        if !self.replace(name, kinds::of(&definition, webhook.as_ref(), mixed)) {
            return false;
        }
        if let Some(read) = self.read.get_mut(name) {
            read.made_from = Some(made);
        }
        self.reread(&resource, definition.clone()).await;
        // Without a webhook all objects are of the storage version now: reads need not look any more.
        if mixed && webhook.is_none() {
            return self.replace(name, kinds::of(&definition, None, false));
        }
        true
    }

    /// Puts a definition's kinds into the registry. Answers whether they are there.
    fn replace(&self, name: &str, kinds: Vec<Kind>) -> bool {
        match self.registry.replace_custom(name, kinds) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(
                    definition = name,
                    error = &error as &dyn std::error::Error,
                    "a definition is not served"
                );
                false
            }
        }
    }

    /// Makes the stored objects what the storage version's schema says now: pruned, defaulted, with the cells and
    /// selectable fields of its columns.
    async fn reread(&self, resource: &str, definition: Definition) {
        if self.store.snapshot().count(resource) == 0 {
            return;
        }
        let Some(kind) = kinds::stored(&definition) else { return };
        let by_webhook = matches!(definition.conversion, Conversion::Webhook(_));
        let remake = move |object: &Object| {
            let mut value = parse(object)?;
            if by_webhook && value["apiVersion"] != kind.api_version() {
                // Of another version, which only the webhook can make of the storage version.
                return None;
            }
            kinds::reread(&definition, &mut value);
            Some(encode::draft(&kind, &value))
        };
        self.store.reread(resource, Box::new(remake)).await;
    }

    /// What the status of a definition must be that is being deleted, and whether its objects are to be deleted. It is
    /// let go when none of them is left.
    async fn terminate(&mut self, name: &str, snapshot: &Snapshot) -> (Option<Value>, bool) {
        let Some(read) = self.read.get(name) else { return (None, false) };
        let finalizers = read.object["metadata"]["finalizers"].as_array();
        if !finalizers.is_some_and(|list| list.iter().any(|finalizer| finalizer == FINALIZER)) {
            return (None, false);
        }
        let definition = &read.definition;
        let mut status = read.object.clone();
        let resource = format!("{}.{}", definition.accepted.plural, definition.group);
        let left = if definition.established { snapshot.count(&resource) } else { 0 };
        if left == 0 {
            let (reason, message) = match definition.established {
                true => ("InstanceDeletionCompleted", "removed all instances"),
                false => ("NeverEstablished", "resource was never established"),
            };
            conditions::set(&mut status, "Terminating", "False", reason, message);
            if let Some(list) = status["metadata"]["finalizers"].as_array_mut() {
                list.retain(|finalizer| finalizer != FINALIZER);
            }
            return (Some(status), false);
        }
        let message = "CustomResource deletion is in progress";
        conditions::set(&mut status, "Terminating", "True", "InstanceDeletionInProgress", message);
        let is_told = status == read.object;
        // Deletions are served while anything is left, also after a restart.
        let is_served = self.serve(name).await;
        (Some(status), is_told && is_served)
    }
}

/// Whether some objects are stored in another version than the storage version.
fn is_mixed(snapshot: &Snapshot, resource: &str, definition: &Definition) -> bool {
    let Some(storage) = definition.storage_version() else { return false };
    // Every stored text begins with its version.
    let start = format!("{{\"apiVersion\":\"{}/{}\",", definition.group, storage.name);
    snapshot.list(resource, "", None).any(|(_, object)| !object.json().starts_with(start.as_bytes()))
}

fn parse(object: &Object) -> Option<Value> {
    match serde_json::from_slice(&object.json()) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(name = object.header().name(), %error, "a stored object is damaged");
            None
        }
    }
}
