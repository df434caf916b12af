//! What a PersistentVolumeClaim takes of a quota.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    limits::QuotaScope,
    measure::{Measure, Membership},
};
use crate::{
    admission::{amounts::Amounts, default_class},
    kinds::{quantity::Quantity, reading::text},
};

const CLAIMS: &str = "persistentvolumeclaims";
const STORAGE: &str = "requests.storage";
/// Between the name of a class and what is limited of it.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Whether a quota measures claims by `name`.
pub fn measures(name: &str) -> bool {
    let of_class = name.split_once(OF_CLASS).map(|(_, what)| what);
    name == "count/persistentvolumeclaims" || [CLAIMS, STORAGE].contains(&of_class.unwrap_or(name))
}

/// A claim, and the storage that it asks for or already has more of; the same for its class.
pub fn measure(claim: &Value) -> Measure {
    let one = Quantity::of_units(1);
    let mut stored = Amounts::from([(CLAIMS.to_owned(), one), (format!("count/{CLAIMS}"), one)]);
    let class = default_class::of_claim(claim);
    let scoped = |what: &str| (!class.is_empty()).then(|| format!("{class}{OF_CLASS}{what}"));
    stored.extend(scoped(CLAIMS).map(|name| (name, one)));
    if let Some(asked) = Quantity::of(&claim["spec"]["resources"]["requests"]["storage"]) {
        let given = Quantity::of(&claim["status"]["allocatedResources"]["storage"]).unwrap_or(Quantity::ZERO);
        let storage = whole(asked.max(given));
        stored.insert(STORAGE.to_owned(), storage);
        stored.extend(scoped(STORAGE).map(|name| (name, storage)));
    }
    Measure { stored, scopes: Membership::Claim(classes(claim)), ..Measure::default() }
}

/// Whole bytes, rounded up.
fn whole(amount: Quantity) -> Quantity {
    if amount.is_whole() { amount } else { Quantity::of_units(amount.units()) }
}

/// The VolumeAttributesClasses that a claim has, wants or is about to get.
fn classes(claim: &Value) -> BTreeSet<String> {
    let (spec, status) = (&claim["spec"], &claim["status"]);
    let named = [
        text(spec, "volumeAttributesClassName"),
        text(status, "currentVolumeAttributesClassName"),
        text(&status["modifyVolumeStatus"], "targetVolumeAttributesClassName"),
    ];
    named.into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Whether a claim with these VolumeAttributesClasses is in a scope.
pub fn is_in(classes: &BTreeSet<String>, scope: &QuotaScope) -> bool {
    if scope.name != "VolumeAttributesClass" {
        return false;
    }
    match classes.is_empty() {
        true => !scope.is_exists() && scope.selects(None),
        false => classes.iter().any(|class| scope.selects(Some(class))),
    }
}

/// Whether a status takes something else than the one before.
pub fn status_differs(new: &Value, old: &Value) -> bool {
    new["status"]["allocatedResources"]["storage"] != old["status"]["allocatedResources"]["storage"]
        || classes(new) != classes(old)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::{amounts, quota::limits::Quota};

    #[test]
    fn a_claim_takes_storage_of_its_class() {
        let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1500m"}}},
            "status": {"allocatedResources": {"storage": "1"}}});
        assert_eq!(
            amounts::text(&measure(&claim).usage(0)),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
            gold.storageclass.storage.k8s.io/requests.storage=2,persistentvolumeclaims=1,requests.storage=2"
        );
        assert!(measure(&claim).stored.keys().all(|name| measures(name)));
        let grown = json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": {"storage": "2Gi"}}});
        assert_eq!(measure(&grown).stored["requests.storage"].to_string(), "2Gi");
    }

    #[test]
    fn a_claim_is_in_the_scope_of_its_attributes() {
        let claim = json!({"spec": {"volumeAttributesClassName": "fast"},
            "status": {"currentVolumeAttributesClassName": "slow"}});
        let is_in = |claim: &Value, operator: &str, values: Value| {
            let expression = json!({"scopeName": "VolumeAttributesClass", "operator": operator, "values": values});
            let quota = Quota::read(&json!({"spec": {"scopeSelector": {"matchExpressions": [expression]}}}));
            measure(claim).is_in(&quota.scopes)
        };
        assert!(is_in(&claim, "Exists", json!([])));
        assert!(is_in(&claim, "In", json!(["slow"])) && is_in(&claim, "In", json!(["fast"])));
        assert!(!is_in(&json!({}), "Exists", json!([])) && is_in(&json!({}), "DoesNotExist", json!([])));
        assert!(status_differs(&claim, &json!({"spec": {"volumeAttributesClassName": "fast"}})));
        assert!(!status_differs(&claim, &claim));
    }
}
