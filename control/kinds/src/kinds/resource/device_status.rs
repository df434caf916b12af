//! What drivers report of the devices that a claim was given (`status.devices`): which reports may stand, and which go
//! with their device.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Value, json};

use super::{configuration, drop_fields, items, label, pool_name, text, too_many};
use crate::kinds::{FieldError, cidr, condition, names};

const MAX_CONDITIONS: usize = 8;
const MAX_ADDRESSES: usize = 16;
const MAX_INTERFACE_NAME: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const NOT_AN_INTERFACE_ADDRESS: &str = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";

/// Driver, pool and device: what makes a device of a claim one.
type DeviceId<'a> = [&'a str; 3];

fn device_id(device: &Value) -> DeviceId<'_> {
    ["driver", "pool", "device"].map(|field| text(device, field))
}

fn shown([driver, pool, device]: DeviceId<'_>) -> Value {
    json!({"Driver": driver, "Pool": pool, "Device": device, "ShareID": ""})
}

/// The devices that a status says were allocated.
fn allocated(status: &Value) -> BTreeSet<DeviceId<'_>> {
    items(&status["allocation"]["devices"], "results").iter().map(device_id).collect()
}

/// Why the reports of a status may not stand.
pub fn validate(status: &Value) -> Vec<FieldError> {
    const PATH: &str = "status.devices";
    let allocated = allocated(status);
    let list = items(status, "devices");
    let mut errors = Vec::new();
    for (i, device) in list.iter().enumerate() {
        let path = format!("{PATH}[{i}]");
        errors.extend(names::csi_driver(&format!("{path}.driver"), &device["driver"]));
        errors.extend(pool_name(&format!("{path}.pool"), &device["pool"]));
        errors.extend(label(&format!("{path}.device"), &device["device"]));
        if !allocated.contains(&device_id(device)) {
            let why = "must be an allocated device in the claim";
            errors.push(FieldError::invalid(&path, &shown(device_id(device)), why));
        }
        let (of_conditions, conditions) = (format!("{path}.conditions"), items(device, "conditions"));
        errors.extend(too_many(&of_conditions, conditions, MAX_CONDITIONS));
        errors.extend(condition::validate_all(&of_conditions, conditions));
        if !device["data"].is_null() {
            errors.extend(configuration::raw_object(&format!("{path}.data"), &device["data"], false));
        }
        errors.extend(network_data(&format!("{path}.networkData"), &device["networkData"]));
    }
    let mut seen = BTreeSet::new();
    for (i, id) in list.iter().map(device_id).enumerate() {
        if !seen.insert(id) {
            errors.push(FieldError::duplicate(format!("{PATH}[{i}]"), &shown(id)));
        }
    }
    errors
}

fn network_data(path: &str, data: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, most) in [("interfaceName", MAX_INTERFACE_NAME), ("hardwareAddress", MAX_HARDWARE_ADDRESS)] {
        if text(data, field).len() > most {
            errors.push(FieldError::too_long(format!("{path}.{field}"), most));
        }
    }
    let (path, addresses) = (format!("{path}.ips"), items(data, "ips"));
    if let Some(error) = too_many(&path, addresses, MAX_ADDRESSES) {
        errors.push(error);
        return errors;
    }
    errors.extend(addresses.iter().enumerate().filter_map(|(i, value)| interface_address(&path, i, value)));
    let texts = addresses.iter().map(|value| value.as_str().unwrap_or_default().to_owned());
    errors.extend(super::duplicates(&path, texts));
    errors
}

/// Why an item is no address of an interface with the length of its network's prefix, in its one canonical form.
fn interface_address(path: &str, i: usize, value: &Value) -> Option<FieldError> {
    let (path, text) = (format!("{path}[{i}]"), value.as_str().unwrap_or_default());
    let Some((address, range)) = cidr::parse(text) else {
        return Some(FieldError::invalid(path, value, NOT_AN_INTERFACE_ADDRESS));
    };
    let (address, prefix) = match address {
        IpAddr::V6(long) => match long.to_ipv4_mapped() {
            Some(short) => (IpAddr::V4(short), range.prefix().saturating_sub(96)),
            None => (address, range.prefix()),
        },
        IpAddr::V4(_) => (address, range.prefix()),
    };
    let canonical = format!("{address}/{prefix}");
    (text != canonical).then(|| FieldError::invalid(path, value, format!("must be in canonical form ({canonical:?})")))
}

/// Drops reports on devices that the claim had, and has no more.
pub fn drop_deallocated(new: &mut Value, old: &Value) {
    let new_status = &new["status"];
    let still = allocated(new_status);
    let gone: BTreeSet<DeviceId<'_>> = allocated(&old["status"]).difference(&still).copied().collect();
    let is_left = |device: &&Value| !gone.contains(&device_id(device));
    let left: Vec<Value> = items(new_status, "devices").iter().filter(is_left).cloned().collect();
    let Some(status) = new.get_mut("status").filter(|status| status.is_object()) else { return };
    match left.is_empty() {
        true => drop_fields(status, &["devices"]),
        false => status["devices"] = left.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> Value {
        json!({"driver": "gpu.example.com", "pool": "n1", "device": name})
    }

    fn status(allocated: &[&str], reported: Vec<Value>) -> Value {
        let results: Vec<Value> = allocated.iter().map(|name| device(name)).collect();
        json!({"allocation": {"devices": {"results": results}}, "devices": reported})
    }

    fn words(status: &Value) -> Vec<String> {
        validate(status).into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn only_allocated_devices_are_reported_on() {
        assert!(words(&status(&["d0"], vec![device("d0")])).is_empty());
        let errors = words(&status(&["d0"], vec![device("d1")]));
        assert!(errors.len() == 1 && errors[0].ends_with("must be an allocated device in the claim"), "{errors:?}");
        assert_eq!(words(&status(&["d0"], vec![device("d0"), device("d0")])).len(), 1);
    }

    #[test]
    fn conditions_and_addresses_of_a_report_are_checked() {
        let mut report = device("d0");
        report["conditions"] = json!([{"type": "Ready"}]);
        report["networkData"] = json!({"interfaceName": "x".repeat(257), "hardwareAddress": "x".repeat(129),
            "ips": ["10.9.8.7/24", "10.9.8.7", "010.9.8.7/24", "2001:DB8::1/64", "10.9.8.7/24", "::ffff:10.9.8.7/120"]});
        let mut told: Vec<String> =
            words(&status(&["d0"], vec![report])).iter().map(|error| error.replace("status.devices[0].", "")).collect();
        told.retain(|error| !error.starts_with("conditions"));
        assert_eq!(
            told,
            [
                "networkData.interfaceName: Too long: may not be more than 256 bytes",
                "networkData.hardwareAddress: Too long: may not be more than 128 bytes",
                "networkData.ips[1]: Invalid value: \"10.9.8.7\": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or \
                 2001:db8::1/64)",
                "networkData.ips[2]: Invalid value: \"010.9.8.7/24\": must be in canonical form (\"10.9.8.7/24\")",
                "networkData.ips[3]: Invalid value: \"2001:DB8::1/64\": must be in canonical form (\"2001:db8::1/64\")",
                "networkData.ips[5]: Invalid value: \"::ffff:10.9.8.7/120\": must be in canonical form (\"10.9.8.7/24\")",
                "networkData.ips[4]: Duplicate value: \"10.9.8.7/24\"",
            ]
        );
    }

    #[test]
    fn reports_go_with_their_device() {
        let claim = |status: Value| json!({"status": status});
        let mut new = claim(status(&["d1"], vec![device("d0"), device("d1"), device("d2")]));
        drop_deallocated(&mut new, &claim(status(&["d0", "d1"], vec![])));
        // One that never was allocated stays, for the validation to refuse.
        assert_eq!(new["status"]["devices"], json!([device("d1"), device("d2")]));
        let mut none = claim(json!({"devices": [device("d0")]}));
        drop_deallocated(&mut none, &claim(status(&["d0"], vec![])));
        assert_eq!(none["status"], json!({}));
    }
}
