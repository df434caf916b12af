//! The ServiceAccount `default` in every namespace.

use std::sync::Arc;

use fairlead_client::Api;
use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Client, api::PostParams};

use super::{Context, root_ca::is_terminating};
use crate::engine::{Failure, Informer, Key, Outcome, Startup, Tasks, api_code, is_namespace_terminating};

const NAME: &str = "default";
const COMPONENT: &str = "serviceaccount-controller";

struct Controller {
    client: Client,
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let controller = Controller {
        client: context.client.clone(),
        namespaces: informers.namespaces.clone(),
        accounts: informers.service_accounts.clone(),
    };
    Startup::new(COMPONENT, controller)
        .on_each(&informers.namespaces)
        .on(&informers.service_accounts, |_, change, queue| {
            if change.key.name == NAME && change.new.is_none() {
                queue.add(Key::cluster(&change.key.namespace));
            }
        })
        .start(tasks, 2, Controller::reconcile);
}

/// The account to create in `namespace`, if any.
fn desired(namespace: &Namespace, standing: Option<&ServiceAccount>) -> Option<ServiceAccount> {
    if standing.is_some() || is_terminating(namespace) {
        return None;
    }
    let metadata =
        ObjectMeta { name: Some(NAME.into()), namespace: namespace.metadata.name.clone(), ..Default::default() };
    Some(ServiceAccount { metadata, ..Default::default() })
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(namespace) = self.namespaces.get(&key) else { return Ok(Outcome::Done) };
        let standing = self.accounts.get(&Key::new(&key.name, NAME));
        let Some(account) = desired(&namespace, standing.as_deref()) else { return Ok(Outcome::Done) };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.name);
        match api.create(&PostParams::default(), &account).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if matches!(api_code(&error), Some(404 | 409)) => Ok(Outcome::Done),
            Err(error) if is_namespace_terminating(&error) => Ok(Outcome::Done),
            Err(error) => Err(Failure::request("create a ServiceAccount")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_namespace_without_the_account_gets_one() {
        let namespace = Namespace::default();
        assert_eq!(desired(&namespace, None).and_then(|a| a.metadata.name).as_deref(), Some("default"));
        assert_eq!(desired(&namespace, Some(&ServiceAccount::default())), None);
    }
}
