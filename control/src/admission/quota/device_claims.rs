//! What a ResourceClaim takes of a quota: itself, and by device class as many devices as it may be given.
//!
//! Source: `pkg/quota/v1/evaluator/core/resource_claims.go`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::measure::Measure;
use crate::{
    admission::amounts::Amounts,
    kinds::{
        quantity::Quantity,
        reading::{items, text},
        resource::resource_claim::MAX_RESULTS,
    },
};

/// Where ResourceClaims are stored.
pub const RESOURCE: &str = "resourceclaims.resource.k8s.io";
const COUNT: &str = "count/resourceclaims.resource.k8s.io";
/// After the name of a device class.
const OF_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// What a request for all devices may come to: as many as one claim can be given.
const MOST_DEVICES: i64 = MAX_RESULTS as i64;

/// Whether a quota measures claims by `name`.
pub fn measures(name: &str) -> bool {
    name == COUNT || name.ends_with(OF_CLASS)
}

/// A claim, and the devices that it asks for of each class. Of alternatives it is charged the most of each class.
pub fn measure(claim: &Value) -> Measure {
    let mut devices: BTreeMap<&str, i64> = BTreeMap::new();
    for request in items(&claim["spec"]["devices"]["requests"]) {
        let mut of_request: BTreeMap<&str, i64> = BTreeMap::new();
        let asked = match request["firstAvailable"].as_array() {
            Some(alternatives) if !alternatives.is_empty() => alternatives.as_slice(),
            _ => std::slice::from_ref(&request["exactly"]),
        };
        for one in asked.iter().filter(|one| one.is_object()) {
            let most = of_request.entry(text(one, "deviceClassName")).or_default();
            *most = (*most).max(count(one));
        }
        for (class, count) in of_request {
            let sum = devices.entry(class).or_default();
            *sum = sum.saturating_add(count);
        }
    }
    let mut stored = Amounts::from([(COUNT.to_owned(), Quantity::of_units(1))]);
    stored.extend(devices.into_iter().map(|(class, count)| (format!("{class}{OF_CLASS}"), Quantity::of_units(count))));
    Measure { stored, ..Measure::default() }
}

fn count(request: &Value) -> i64 {
    match text(request, "allocationMode") {
        "ExactCount" => request["count"].as_i64().unwrap_or_default(),
        "All" => MOST_DEVICES,
        // A mode of a later version is charged nothing.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::amounts;

    #[test]
    fn a_claim_takes_the_devices_of_each_class_that_it_may_be_given() {
        let exact =
            |class: &str, count: i64| json!({"deviceClassName": class, "allocationMode": "ExactCount", "count": count});
        let all = json!({"deviceClassName": "nic", "allocationMode": "All"});
        let claim = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": exact("gpu", 2)},
            {"name": "b", "firstAvailable": [exact("gpu", 1), exact("gpu", 4), exact("fpga", 3)]},
            {"name": "c", "exactly": all},
            {"name": "d", "exactly": {"deviceClassName": "later", "allocationMode": "Half"}},
        ]}}});
        assert_eq!(
            amounts::text(&measure(&claim).usage(0)),
            "count/resourceclaims.resource.k8s.io=1,fpga.deviceclass.resource.k8s.io/devices=3,\
             gpu.deviceclass.resource.k8s.io/devices=6,later.deviceclass.resource.k8s.io/devices=0,\
             nic.deviceclass.resource.k8s.io/devices=32"
        );
        assert!(measure(&claim).stored.keys().all(|name| measures(name)));
        assert!(!measures("devices") && !measures("count/resourceclaims"));
    }
}
