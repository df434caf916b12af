//! What one object takes of a quota, and which scopes it is in.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{claims, device_claims, limits::QuotaScope, pods, services};
use crate::{admission::amounts::Amounts, kinds::quantity::Quantity, request::Verb, request::WriteRequest};

/// How objects of a resource are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluator {
    /// By what their containers ask for.
    Pods,
    /// By their node ports and load balancers.
    Services,
    /// By the storage that they ask for.
    Claims,
    /// By the devices that they ask for.
    DeviceClaims,
    /// By how many there are, under each of these names.
    Count(Vec<String>),
}

/// What one object takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// As long as it is stored.
    pub stored: Amounts,
    /// As long as it lives.
    pub living: Amounts,
    /// When it ceases to live, if that is known: Unix seconds.
    pub until: Option<i64>,
    /// Which scopes it is in.
    pub scopes: Membership,
}

/// What decides which scopes an object is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Membership {
    /// It is in none.
    #[default]
    None,
    /// A pod.
    Pod(pods::Facts),
    /// A claim, by the names of its VolumeAttributesClasses.
    Claim(BTreeSet<String>),
}

/// Resources that had a name of their own in quotas before all could be counted.
const OLD_NAMES: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
/// Resources that are never counted.
const IGNORED: [&str; 2] = ["events", "events.events.k8s.io"];

impl Evaluator {
    /// Of objects of `resource` (`deployments.apps`); `None` if quotas ignore them.
    pub fn of(resource: &str) -> Option<Self> {
        match resource {
            "pods" => Some(Self::Pods),
            "services" => Some(Self::Services),
            "persistentvolumeclaims" => Some(Self::Claims),
            device_claims::RESOURCE => Some(Self::DeviceClaims),
            resource if IGNORED.contains(&resource) => None,
            resource => {
                let old = OLD_NAMES.contains(&resource).then(|| resource.to_owned());
                Some(Self::Count(std::iter::once(format!("count/{resource}")).chain(old).collect()))
            }
        }
    }

    /// The resource whose objects a quota measures by `name`.
    pub fn resource_of(name: &str) -> Option<&str> {
        if pods::measures(name) {
            Some("pods")
        } else if services::measures(name) {
            Some("services")
        } else if claims::measures(name) {
            Some("persistentvolumeclaims")
        } else if device_claims::measures(name) {
            Some(device_claims::RESOURCE)
        } else if OLD_NAMES.contains(&name) {
            Some(name)
        } else {
            name.strip_prefix("count/").filter(|resource| !IGNORED.contains(resource))
        }
    }

    /// Whether a quota measures these objects by `name`.
    pub fn measures(&self, name: &str) -> bool {
        match self {
            Self::Pods => pods::measures(name),
            Self::Services => services::measures(name),
            Self::Claims => claims::measures(name),
            Self::DeviceClaims => device_claims::measures(name),
            Self::Count(names) => names.iter().any(|own| own == name),
        }
    }

    /// Whether a write can take more.
    pub fn handles(&self, request: &WriteRequest<'_>, object: &Value) -> bool {
        let update = request.operation == Verb::Update;
        let old = request.old.unwrap_or(&Value::Null);
        match (self, request.subresource) {
            (Self::Pods, None) => !update || pods::is_terminating(object) != pods::is_terminating(old),
            (Self::Pods, Some("resize")) => update,
            (Self::Services | Self::Claims | Self::DeviceClaims, None) => true,
            (Self::Claims, Some("status")) => claims::status_differs(object, old),
            (Self::Count(_), None) => !update,
            _ => false,
        }
    }

    /// What an object takes.
    pub fn measure(&self, object: &Value) -> Measure {
        match self {
            Self::Pods => pods::measure(object),
            Self::Services => services::measure(object),
            Self::Claims => claims::measure(object),
            Self::DeviceClaims => device_claims::measure(object),
            Self::Count(names) => {
                let one = |name: &String| (name.clone(), Quantity::of_units(1));
                Measure { stored: names.iter().map(one).collect(), ..Measure::default() }
            }
        }
    }
}

impl Measure {
    /// What it takes at `now`, in Unix seconds.
    pub fn usage(&self, now: i64) -> Amounts {
        let mut usage = self.stored.clone();
        if self.until.is_none_or(|until| now <= until) {
            usage.extend(self.living.clone());
        }
        usage
    }

    /// Whether it is in all of these scopes.
    pub fn is_in(&self, scopes: &[QuotaScope]) -> bool {
        scopes.iter().all(|scope| match &self.scopes {
            Membership::None => false,
            Membership::Pod(facts) => facts.is_in(scope),
            Membership::Claim(classes) => claims::is_in(classes, scope),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::amounts;

    #[test]
    fn every_name_leads_to_its_resource() {
        for (name, resource) in [
            ("cpu", Some("pods")),
            ("requests.example.com/gpu", Some("pods")),
            ("count/pods", Some("pods")),
            ("services.nodeports", Some("services")),
            ("gold.storageclass.storage.k8s.io/requests.storage", Some("persistentvolumeclaims")),
            ("gpu.deviceclass.resource.k8s.io/devices", Some("resourceclaims.resource.k8s.io")),
            ("count/resourceclaims.resource.k8s.io", Some("resourceclaims.resource.k8s.io")),
            ("secrets", Some("secrets")),
            ("count/secrets", Some("secrets")),
            ("count/deployments.apps", Some("deployments.apps")),
            ("count/events", None),
            ("example.com/gpu", None),
        ] {
            assert_eq!(Evaluator::resource_of(name), resource, "{name}");
            if let Some(resource) = resource {
                assert!(Evaluator::of(resource).unwrap().measures(name), "{name}");
            }
        }
    }

    #[test]
    fn what_is_only_counted_is_in_no_scope() {
        let secret = Evaluator::of("secrets").unwrap().measure(&json!({}));
        assert_eq!(amounts::text(&secret.usage(0)), "count/secrets=1,secrets=1");
        assert!(secret.is_in(&[]));
        let quota = super::super::limits::Quota::read(&json!({"spec": {"scopes": ["NotBestEffort"]}}));
        assert!(!secret.is_in(&quota.scopes));
    }
}
