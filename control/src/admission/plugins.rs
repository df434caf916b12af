//! Kubernetes' built-in admission plugins that are on by default, in its order. Each plugin's file decides; here is
//! only what each is given.
//!
//! Webhooks and policies come after them, and ResourceQuota after those: see [`super::quota`].

use std::sync::Arc;

use rand::RngExt;
use serde_json::Value;

use super::{
    certificate_request, certificate_subject, claim_resize, default_class, default_tolerations, limit_ranger,
    node_taint, pod_security, priority, readings::Readings, runtime_class, service_account, storage_protection,
    topology_labels,
};
use crate::{
    kinds::{Registry, pod::qos, reading::text},
    request::Verb,
    request::WriteRequest,
    status::Status,
    store::Store,
};

/// The plugins with what they have read.
#[derive(Debug)]
pub struct Plugins {
    accounts: Readings<service_account::Account>,
    limit_ranges: Readings<Vec<limit_ranger::Limit>>,
    priorities: Readings<priority::Class>,
    runtimes: Readings<runtime_class::Class>,
    storage_classes: Readings<default_class::Class>,
    ingress_classes: Readings<default_class::Class>,
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            accounts: Readings::new(service_account::RESOURCE, service_account::read),
            limit_ranges: Readings::new(limit_ranger::RESOURCE, limit_ranger::read),
            priorities: Readings::new(priority::RESOURCE, priority::read),
            runtimes: Readings::new(runtime_class::RESOURCE, runtime_class::read),
            storage_classes: Readings::new(default_class::STORAGE_CLASSES, default_class::read_storage),
            ingress_classes: Readings::new(default_class::INGRESS_CLASSES, default_class::read_ingress),
        }
    }
}

/// What plugins are given beside the request.
#[derive(Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// Where a plugin waits for an object that is about to be made.
    pub store: Option<&'a Arc<dyn Store>>,
    /// The kinds that are served.
    pub kinds: Option<&'a Registry>,
}

impl Plugins {
    /// Fills in what the cluster gives to a new or changed object.
    pub async fn mutate(
        &self,
        request: &WriteRequest<'_>,
        around: Surroundings<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        let kind = request.kind;
        match (&*kind.group, &*kind.kind, request.operation, request.subresource) {
            ("", "Pod", Verb::Create, None) => self.complete_pod(request, around, object).await,
            ("", "Pod", Verb::Update, None) => {
                let old = request.old.unwrap_or(&Value::Null);
                priority::keep(&mut object["spec"], &old["spec"]);
                default_tolerations::add(&mut object["spec"]);
                if object["spec"] == old["spec"] {
                    // What was left out and filled in again is no change.
                    object["metadata"]["generation"] = old["metadata"]["generation"].clone();
                }
                Ok(())
            }
            ("", "Pod", Verb::Update, Some("resize")) => {
                let metadata = object["metadata"].clone();
                self.set_limits(request, object);
                // A resize changes nothing else.
                object["metadata"] = metadata;
                Ok(())
            }
            ("", "Pod", Verb::Update, Some("binding")) => {
                copy_topology(request, object);
                Ok(())
            }
            ("", "Node", Verb::Create, None) => {
                node_taint::add(object);
                Ok(())
            }
            ("", "PersistentVolumeClaim", Verb::Create, None) => {
                default_class::set_for_claim(object, || self.storage_classes.list(request.snapshot, ""));
                storage_protection::add(object, storage_protection::CLAIM);
                Ok(())
            }
            ("", "PersistentVolume", Verb::Create, None) => {
                storage_protection::add(object, storage_protection::VOLUME);
                Ok(())
            }
            ("storage.k8s.io", "VolumeAttributesClass", Verb::Create, None) => {
                storage_protection::add(object, storage_protection::ATTRIBUTES_CLASS);
                Ok(())
            }
            ("networking.k8s.io", "Ingress", Verb::Create, None) => {
                default_class::set_for_ingress(object, || self.ingress_classes.list(request.snapshot, ""));
                Ok(())
            }
            ("certificates.k8s.io", "CertificateSigningRequest", Verb::Create, None) => {
                certificate_request::set_requester(object, request.identity);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Refuses what a plugin does not allow. The object is the one to be stored.
    pub async fn validate(
        &self,
        request: &WriteRequest<'_>,
        around: Surroundings<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        if !matches!(request.operation, Verb::Create | Verb::Update) {
            return Ok(());
        }
        self.check_limits(request, object)?;
        pod_security::validate(request, object)?;
        let kind = request.kind;
        let violation = match (&*kind.group, &*kind.kind, request.operation, request.subresource) {
            ("", "Pod", Verb::Create, None) => self.pod_violation(request, around, object).await,
            ("", "Pod", Verb::Update, Some("ephemeralcontainers")) => {
                self.secret_violation(request, around, object, service_account::ephemeral_secret_violation).await
            }
            ("scheduling.k8s.io", "PriorityClass", operation, None) => {
                let classes = self.priorities.list(request.snapshot, "");
                priority::violation(object, operation == Verb::Create, &classes)
            }
            ("", "PersistentVolumeClaim", Verb::Update, None) => {
                let expands =
                    |class: &str| self.storage_classes.get(request.snapshot, class).is_some_and(|class| class.expands);
                request.old.and_then(|old| claim_resize::violation(object, old, expands)).map(str::to_owned)
            }
            ("certificates.k8s.io", "CertificateSigningRequest", Verb::Create, None) => {
                certificate_subject::violation(object)
            }
            _ => None,
        };
        violation.map_or(Ok(()), |why| Err(Status::forbidden(request.subject(), &why)))
    }

    async fn complete_pod(
        &self,
        request: &WriteRequest<'_>,
        around: Surroundings<'_>,
        pod: &mut Value,
    ) -> Result<(), Status> {
        let snapshot = request.snapshot;
        let refused = |why: String| Status::forbidden(request.subject(), &why);
        self.set_limits(request, pod);
        if !service_account::is_mirror(pod) {
            let name = service_account::set_name(&mut pod["spec"]);
            let namespace = request.namespace.unwrap_or_default();
            let account = service_account::find(&self.accounts, snapshot, around.store, namespace, &name).await;
            let token_volume = serves_tokens(around.kinds).then(token_volume);
            service_account::complete(pod, &*account.map_err(refused)?, token_volume);
        }
        let named = |name: &str| self.priorities.get(snapshot, name);
        let classes = || self.priorities.list(snapshot, "");
        priority::set(&mut pod["spec"], named, classes).map_err(refused)?;
        default_tolerations::add(&mut pod["spec"]);
        let runtime = text(&pod["spec"], "runtimeClassName").to_owned();
        if !runtime.is_empty() {
            let class = self.runtimes.get(snapshot, &runtime);
            let class = class.ok_or_else(|| refused(runtime_class::not_found(&runtime)))?;
            runtime_class::set(&mut pod["spec"], &class).map_err(refused)?;
        }
        copy_topology(request, pod);
        // Told from requests and limits, which have just been filled in.
        pod["status"]["qosClass"] = qos::class(&pod["spec"]).into();
        Ok(())
    }

    async fn pod_violation(&self, request: &WriteRequest<'_>, around: Surroundings<'_>, pod: &Value) -> Option<String> {
        let why = match service_account::is_mirror(pod) {
            true => service_account::mirror_violation(pod).map(str::to_owned),
            false => self.secret_violation(request, around, pod, service_account::secret_violation).await,
        };
        if why.is_some() {
            return why;
        }
        let runtime = text(&pod["spec"], "runtimeClassName");
        let class = if runtime.is_empty() { None } else { self.runtimes.get(request.snapshot, runtime) };
        runtime_class::violation(&pod["spec"], class.as_deref()).map(str::to_owned)
    }

    /// What `violation` says of a pod and its account, which must exist.
    async fn secret_violation(
        &self,
        request: &WriteRequest<'_>,
        around: Surroundings<'_>,
        pod: &Value,
        violation: fn(&Value, &service_account::Account, &str) -> Option<String>,
    ) -> Option<String> {
        let (name, namespace) = (text(&pod["spec"], "serviceAccountName"), request.namespace.unwrap_or_default());
        if name.is_empty() {
            return Some(format!("no service account specified for pod {namespace}/{}", request.name));
        }
        match service_account::find(&self.accounts, request.snapshot, around.store, namespace, name).await {
            Ok(account) => violation(pod, &account, name),
            Err(why) => Some(why),
        }
    }

    fn limits(&self, request: &WriteRequest<'_>) -> Vec<Arc<Vec<limit_ranger::Limit>>> {
        let Some(namespace) = request.namespace.filter(|_| limit_ranger::concerns(request)) else { return Vec::new() };
        if request.snapshot.count(limit_ranger::RESOURCE) == 0 {
            return Vec::new();
        }
        let found = self.limit_ranges.list(request.snapshot, &format!("{namespace}/"));
        found.into_iter().map(|(_, range)| range).collect()
    }

    fn set_limits(&self, request: &WriteRequest<'_>, pod: &mut Value) {
        for range in self.limits(request) {
            limit_ranger::set_defaults(pod, &range);
        }
    }

    fn check_limits(&self, request: &WriteRequest<'_>, object: &Value) -> Result<(), Status> {
        for range in self.limits(request) {
            let violation = match &*request.kind.kind {
                "Pod" => limit_ranger::violation_of_pod(object, &range),
                _ => limit_ranger::violation_of_claim(object, &range),
            };
            if let Some(why) = violation {
                return Err(Status::forbidden(request.subject(), &why));
            }
        }
        Ok(())
    }
}

fn copy_topology(request: &WriteRequest<'_>, pod: &mut Value) {
    topology_labels::copy(pod, |node, key| request.snapshot.get("nodes", node)?.header().label(key).map(str::to_owned));
}

/// Whether nodes can ask for tokens of ServiceAccounts: a pod with a token that nobody gives would never start.
fn serves_tokens(kinds: Option<&Registry>) -> bool {
    let accounts = kinds.and_then(|kinds| kinds.snapshot().by_path("", "v1", service_account::RESOURCE));
    accounts.is_some_and(|accounts| accounts.has("token"))
}

/// A name for a volume with a token.
fn token_volume() -> String {
    let mut random = rand::rng();
    let letter = |_| LETTERS[random.random_range(0..LETTERS.len())] as char;
    service_account::TOKEN_VOLUME.chars().chain((0..SUFFIX).map(letter)).collect()
}

/// Without vowels, so that they make no words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
