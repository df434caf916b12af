//! Aggregated ClusterRoles: the rules of all roles that their selectors find, written into their own rules.

use std::{collections::BTreeSet, sync::Arc};

use fairlead_client::Api;
use fairlead_kinds::kinds::label_selector;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::Context;
use crate::engine::{Failure, Informer, Key, Outcome, Startup, Tasks, unless_gone};

const COMPONENT: &str = "clusterrole-aggregation-controller";

struct Controller {
    client: Client,
    roles: Arc<Informer<ClusterRole>>,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let roles = context.informers.cluster_roles.clone();
    let controller = Controller { client: context.client.clone(), roles: roles.clone() };
    // Any role may be, or have been, one that another gathers.
    Startup::new(COMPONENT, controller)
        .on(&roles, |controller, _, queue| {
            for role in controller.roles.all().iter().filter(|role| role.aggregation_rule.is_some()) {
                queue.add(Key::cluster(role.metadata.name.as_deref().unwrap_or_default()));
            }
        })
        .start(tasks, 2, Controller::reconcile);
}

/// The rules of an aggregated role, given all roles by name: each rule once, in the order of the selectors and names.
fn gathered(role: &ClusterRole, roles: &[Arc<ClusterRole>]) -> Vec<PolicyRule> {
    let selectors = role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    let (mut rules, mut seen) = (Vec::new(), BTreeSet::new());
    for selector in selectors.map(|selector| json!(selector)) {
        let others = roles.iter().filter(|other| other.metadata.name != role.metadata.name);
        for other in others.filter(|other| label_selector::selects(&selector, &json!(other.metadata.labels))) {
            for rule in other.rules.iter().flatten() {
                if seen.insert(json!(rule).to_string()) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: Key) -> Result<Outcome, Failure> {
        let Some(role) = self.roles.get(&key).filter(|role| role.aggregation_rule.is_some()) else {
            return Ok(Outcome::Done);
        };
        let rules = gathered(&role, &self.roles.all());
        if rules == *role.rules.as_deref().unwrap_or_default() {
            return Ok(Outcome::Done);
        }
        let patch = json!([{"op": "add", "path": "/rules", "value": rules}]);
        let patch =
            serde_json::from_value(patch).map_err(|e| Failure::Malformed { what: "patch", message: e.to_string() })?;
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        let answer = api.patch(&key.name, &PatchParams::default(), &Patch::<()>::Json(patch)).await;
        unless_gone(answer, "gather the rules of a ClusterRole").map(|_| Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, labels: serde_json::Value, resources: &[&str]) -> Arc<ClusterRole> {
        let rules: Vec<_> = resources
            .iter()
            .map(|resource| json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]}))
            .collect();
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "rules": rules})).unwrap())
    }

    #[test]
    fn a_role_gathers_the_rules_of_those_it_selects_once() {
        let mut all = role("all", json!({"to": "all"}), &["old"]);
        Arc::make_mut(&mut all).aggregation_rule = serde_json::from_value(
            json!({"clusterRoleSelectors": [{"matchLabels": {"to": "all"}}, {"matchLabels": {"too": "all"}}]}),
        )
        .unwrap();
        let roles = [
            role("a", json!({"to": "all"}), &["pods", "services"]),
            role("b", json!({"too": "all"}), &["services", "nodes"]),
            role("c", json!({}), &["secrets"]),
            all.clone(),
        ];
        let rules = gathered(&all, &roles);
        let resources: Vec<&str> =
            rules.iter().flat_map(|rule| rule.resources.iter().flatten()).map(|r| &**r).collect();
        assert_eq!(resources, ["pods", "services", "nodes"]);
    }
}
