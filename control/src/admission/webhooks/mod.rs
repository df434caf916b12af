//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration: programs outside that are asked about requests.
//!
//! ```text
//!  configurations ──compile once per change──▶ Hooks, by configuration's name
//!  request ──selectors, rules, conditions──▶ invoked Hook ──review──▶ HTTPS ──▶ allowed | denied | failed
//! ```
//!
//! - **Hook**: one entry of a configuration, compiled.
//! - **Invoked**: the kind, in the version that the hook's rules name, in which the hook sees the objects.
//!
//! | file | what it knows |
//! |---|---|
//! | `hook` | one webhook, whether it is asked, and how |
//! | `review` | AdmissionReview, there and back |
//! | `mutating` | one after the other, each on the object as the one before left it; reinvocation |
//! | `validating` | all at once |
//! | `refusal` | what a denial and a failure are to the client |
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook`.

mod hook;
mod mutating;
mod refusal;
mod review;
mod validating;

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde_json::Value;

use self::hook::Hook;
use super::{attributes::Attributes, per_revision::PerRevision, reinvocation::Reinvocation, versions::Versioned};
use crate::{
    admission_plugins::{AdmissionPlugins, PluginName},
    metrics::AdmissionMetrics,
    status::Status,
    store::Snapshot,
    webhook::{Client, ClientConfig, ConfigError, Dial},
};

/// Where mutating configurations are stored.
pub const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
/// Where validating configurations are stored.
pub const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

/// The webhooks of the cluster.
#[derive(Debug)]
pub struct Webhooks {
    mutating: Option<Configurations>,
    validating: Option<Configurations>,
    clients: Clients,
}

/// The hooks of each configuration of one kind. There are none of a kind that nobody asks, its plugin being off.
type Configurations = PerRevision<Vec<Arc<Hook>>>;

/// One client for all webhooks at one address with the same authorities: a change of a configuration keeps its
/// connections. Clients are dropped with the hooks that use them.
#[derive(Debug)]
struct Clients {
    network: Arc<dyn Dial>,
    kept: Mutex<HashMap<String, std::sync::Weak<Client>>>,
}

impl Webhooks {
    /// Those that these plugins ask, which are called over `network`.
    pub fn new(plugins: &AdmissionPlugins, network: Arc<dyn Dial>) -> Self {
        let asked = |by, resource| plugins.has(by).then(|| PerRevision::new(resource));
        Self {
            mutating: asked(PluginName::MutatingAdmissionWebhook, MUTATING),
            validating: asked(PluginName::ValidatingAdmissionWebhook, VALIDATING),
            clients: Clients { network, kept: Mutex::default() },
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self, snapshot: &Snapshot) -> bool {
        [&self.mutating, &self.validating].into_iter().flatten().all(|of| of.is_empty(snapshot))
    }

    /// Whether the rules of any of them take requests like this one.
    pub fn concern(&self, attributes: &Attributes<'_>) -> bool {
        let any = |of| self.hooks(of, attributes.snapshot).iter().any(|hook| hook.concerns(attributes));
        any(&self.mutating) || any(&self.validating)
    }

    /// Has the mutating webhooks change the object.
    pub async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        objects: &mut Versioned<'_>,
        state: &mut Reinvocation,
        metrics: &AdmissionMetrics,
    ) -> Result<(), Status> {
        let hooks = self.hooks(&self.mutating, attributes.snapshot);
        mutating::dispatch(&hooks, attributes, objects, state, metrics).await
    }

    /// Asks the validating webhooks.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        objects: &mut Versioned<'_>,
        metrics: &AdmissionMetrics,
    ) -> Result<(), Status> {
        let hooks = self.hooks(&self.validating, attributes.snapshot);
        validating::dispatch(&hooks, attributes, objects, metrics).await
    }

    fn hooks(&self, of: &Option<Configurations>, snapshot: &Snapshot) -> Vec<Arc<Hook>> {
        let Some(of) = of.as_ref().filter(|of| !of.is_empty(snapshot)) else { return Vec::new() };
        let all = of.of(snapshot, |configuration| Hook::all_of(configuration, &self.clients));
        all.iter().filter_map(|made| made.value.as_deref()).flatten().cloned().collect()
    }
}

impl Clients {
    fn get(&self, config: &Value) -> Result<Arc<Client>, ConfigError> {
        let key = config.to_string();
        if let Some(client) = self.kept.lock().get(&key).and_then(std::sync::Weak::upgrade) {
            return Ok(client);
        }
        let client = Arc::new(Client::new(ClientConfig::read(config)?, self.network.clone())?);
        let mut kept = self.kept.lock();
        kept.retain(|_, client| client.strong_count() > 0);
        kept.insert(key, Arc::downgrade(&client));
        Ok(client)
    }
}
