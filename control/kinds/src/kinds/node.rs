//! Node: a machine that runs pods.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::{
    BuiltIn, Cell, Column, FieldError, Storage, cidr, names,
    pod::resources,
    prepare,
    reading::{as_text, entries, items, text},
    resource_name,
};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    subresources: &["proxy", "status"],
    storage: Storage::Stored,
    default,
    validate,
    prepare: prepare_node,
    prepare_status: |new, old| drop_unless(!old["status"]["config"].is_null(), new, "status", "config"),
    columns: &[
        Column::name(),
        Column::text("Status", "The status of the node"),
        Column::text("Roles", "The roles of the node"),
        Column::age(),
        Column::text("Version", "Version of the node's agent."),
        Column::wide("Internal-IP", "First address of the node inside the cluster."),
        Column::wide("External-IP", "First address of the node for the outside."),
        Column::wide("OS-Image", "Operating system of the node."),
        Column::wide("Kernel-Version", "Kernel of the node."),
        Column::wide("Container-Runtime", "Container runtime of the node."),
    ],
    cells,
    selectable: |o| {
        BTreeMap::from([("spec.unschedulable", o["spec"]["unschedulable"].as_bool().unwrap_or(false).to_string())])
    },
    schema: "io.k8s.api.core.v1.Node",
    ..BuiltIn::PLAIN
};

/// What a node has is for pods, if it says nothing else.
fn default(object: &mut Value) {
    // `podCIDR` is the first of `podCIDRs`, and says more than they do.
    let first = object["spec"]["podCIDRs"][0].clone();
    match text(&object["spec"], "podCIDR").to_owned() {
        subnet if !subnet.is_empty() && first != *subnet => object["spec"]["podCIDRs"] = json!([subnet]),
        subnet if subnet.is_empty() && first.is_string() => object["spec"]["podCIDR"] = first,
        _ => {}
    }
    if let Some(status) = object.get_mut("status") {
        resources::round_lists(status, &["capacity", "allocatable"]);
    }
    let status = &object["status"];
    if !status["capacity"].is_null() && status["allocatable"].is_null() {
        object["status"]["allocatable"] = status["capacity"].clone();
    }
}

/// Unlike other kinds, a Node is born with the status that was sent: its agent registers it in one write.
fn prepare_node(new: &mut Value, old: Option<&Value>) {
    if old.is_some() {
        prepare::keep_status(new, old, json!({}));
    }
    let has = |pointer: &str| old.and_then(|old| old.pointer(pointer)).is_some_and(|value| !value.is_null());
    let has_config = has("/spec/configSource");
    drop_unless(has_config, new, "spec", "configSource");
    drop_unless(has_config, new, "status", "config");
    drop_unless(has("/status/declaredFeatures"), new, "status", "declaredFeatures");
}

/// Drops a field of a feature that is gone, unless the stored node has it.
fn drop_unless(is_used: bool, node: &mut Value, part: &str, field: &str) {
    if let Some(part) = node.get_mut(part).and_then(Value::as_object_mut).filter(|_| !is_used) {
        part.shift_remove(field);
    }
}

/// A node has one range of pod addresses, or one for each family.
fn pod_ranges(ranges: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.podCIDRs";
    let read = items(ranges).enumerate().map(|(i, range)| cidr::lenient(&format!("{PATH}[{i}]"), range));
    let read: Vec<_> = read.collect();
    let unread = read.iter().position(Result::is_err);
    let families: BTreeSet<bool> = read.iter().flatten().map(IpNetwork::is_ipv4).collect();
    let count = read.len();
    let mut errors: Vec<FieldError> = read.into_iter().filter_map(Result::err).collect();
    if count < 2 {
        return errors;
    }
    if let Some(at) = unread {
        let range = as_text(&ranges[at]);
        let why = format!("invalid CIDR[{at}]: <nil> (invalid CIDR address: {range})");
        let why = format!("invalid PodCIDRs. failed to check with dual stack with error:{why}");
        errors.push(FieldError::internal(PATH, &why));
    }
    if unread.is_some() || families.len() != 2 || count > 2 {
        errors.push(FieldError::invalid(PATH, ranges, "may specify no more than one CIDR for each IP family"));
    }
    errors
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = taints_and_resources(new);
    errors.extend(declared_features(&new["status"]["declaredFeatures"]));
    errors.extend(pod_ranges(&new["spec"]["podCIDRs"]));
    let Some(old) = old else { return errors };
    let mut seen = BTreeSet::new();
    for (i, address) in items(&new["status"]["addresses"]).enumerate() {
        if !seen.insert((text(address, "type"), text(address, "address"))) {
            errors.push(FieldError::duplicate(format!("status.addresses[{i}]"), address));
        }
    }
    {
        const WHY: &str = "node updates may not change podCIDR except from \"\" to valid";
        let list = |node: &Value| items(&node["spec"]["podCIDRs"]).cloned().collect::<Vec<_>>();
        let (was, is) = (list(old), list(new));
        let changed = if was.len() == is.len() { was.iter().zip(&is).filter(|(a, b)| a != b).count() } else { 1 };
        if !was.is_empty() {
            errors.extend(std::iter::repeat_n(FieldError::forbidden("spec.podCIDRs", WHY), changed));
        }
        let (was, is) = (&old["spec"]["providerID"], &new["spec"]["providerID"]);
        if text(&old["spec"], "externalID") != text(&new["spec"], "externalID") {
            errors.push(FieldError::forbidden("spec.externalID", "may not be updated"));
        }
        if was.as_str().is_some_and(|s| !s.is_empty()) && was != is {
            errors.push(FieldError::forbidden(
                "spec.providerID",
                "node updates may not change providerID except from \"\" to valid",
            ));
        }
    }
    errors
}

/// `MyFeature` or `MyFeature/mySubFeature`, in order and each once.
fn declared_features(list: &Value) -> Vec<FieldError> {
    const MAX_NAME: usize = 253;
    let is_word = |word: &str, starts: fn(&u8) -> bool| {
        word.bytes().next().is_some_and(|first| starts(&first)) && word.bytes().all(|c| c.is_ascii_alphanumeric())
    };
    let is_name = |name: &str| {
        let mut words = name.split('/');
        words.next().is_some_and(|word| is_word(word, u8::is_ascii_uppercase))
            && words.all(|word| is_word(word, u8::is_ascii_alphabetic))
    };
    let mut errors = Vec::new();
    let mut before: Option<&str> = None;
    for (i, feature) in items(list).enumerate() {
        let (path, name) = (format!("status.declaredFeatures[{i}]"), as_text(feature));
        match before {
            Some(before) if before == name => errors.push(FieldError::duplicate(&path, feature)),
            Some(before) if before > name => {
                errors.push(FieldError::invalid(&path, feature, "list must be sorted alphabetically"));
            }
            _ => {}
        }
        let why = match name {
            name if name.len() > MAX_NAME => Some(format!("must be no more than {MAX_NAME} characters")),
            name if !is_name(name) => Some(
                "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature \
                 or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
                    .to_owned(),
            ),
            _ => None,
        };
        errors
            .extend(why.map(|why| FieldError::invalid(path, feature, format!("invalid feature name {name:?}: {why}"))));
        before = Some(name);
    }
    errors
}

fn taints_and_resources(new: &Value) -> Vec<FieldError> {
    // Kubernetes names the metadata here, too.
    let mut errors = taints("metadata.taints", &new["spec"]["taints"]);
    for list in ["capacity", "allocatable"] {
        for (name, amount) in entries(&new["status"][list]) {
            // A step without a name is an index to Kubernetes.
            let step = if name.is_empty() { "[]".to_owned() } else { format!(".{name}") };
            errors.extend(resource_name::amount(&format!("status.{list}{step}"), name, amount));
        }
    }
    errors
}

fn taints(path: &str, taints: &Value) -> Vec<FieldError> {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, taint) in items(taints).enumerate() {
        let path = format!("{path}[{i}]");
        let (key, effect) = (text(taint, "key"), text(taint, "effect"));
        errors.extend(FieldError::invalid_each(format!("{path}.key"), &key.into(), names::qualified_name(key)));
        let wrong = names::label_value(text(taint, "value"));
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(format!("{path}.value"), &taint["value"], wrong.join(";")));
        }
        match effect {
            "" => errors.push(FieldError::required(format!("{path}.effect"), "")),
            _ if EFFECTS.contains(&effect) => {}
            _ => errors.push(FieldError::not_supported(format!("{path}.effect"), &taint["effect"], &EFFECTS)),
        }
        if !seen.insert((key, effect)) {
            let mut error = FieldError::duplicate(path, taint);
            error.message.push_str(": taints must be unique by key and effect pair");
            errors.push(error);
        }
    }
    errors
}

fn cells(node: &Value) -> Vec<Cell> {
    let info = &node["status"]["nodeInfo"];
    let known = |v: &Value| Cell::text(v.as_str().filter(|s| !s.is_empty()).unwrap_or("<unknown>"));
    vec![
        Cell::name(node),
        Cell::text(status(node)),
        Cell::text(roles(node)),
        Cell::age(node),
        Cell::text(info["kubeletVersion"].as_str().unwrap_or_default()),
        Cell::text(address(node, "InternalIP")),
        Cell::text(address(node, "ExternalIP")),
        known(&info["osImage"]),
        known(&info["kernelVersion"]),
        known(&info["containerRuntimeVersion"]),
    ]
}

fn status(node: &Value) -> String {
    let ready = node["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    let word = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if node["spec"]["unschedulable"] == true { format!("{word},SchedulingDisabled") } else { word.to_owned() }
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address(node: &Value, kind: &str) -> String {
    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    let of_kind = addresses.filter(|a| a["type"] == kind).find_map(|a| a["address"].as_str());
    of_kind.unwrap_or("<none>").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(new: Value, old: Option<Value>) -> Vec<String> {
        let errors = validate(&new, old.as_ref()).into_iter();
        errors.map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn declared_features_are_names_in_order() {
        let words = |list: Value| {
            let errors = declared_features(&list).into_iter();
            errors.map(|error| format!("{}: {}", &error.path[23..], error.message)).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(
            words(json!(["A", "Feature", "Feature/sub", "Feature/Sub2/x"])),
            "[3]: Invalid value: \"Feature/Sub2/x\": list must be sorted alphabetically"
        );
        assert_eq!(words(json!(["A", "A"])), "[1]: Duplicate value: \"A\"");
        for bad in ["10.1.2.3", "", "a", "A/", "A/1", "A-b", "/A"] {
            let said = words(json!([bad]));
            assert!(said.contains("must start with an UpperCamelCase segment"), "{bad}: {said}");
        }
        assert!(words(json!(["A".repeat(254)])).ends_with("must be no more than 253 characters"));
        let mut node = json!({"status": {"declaredFeatures": ["A"]}});
        prepare_node(&mut node, None);
        assert_eq!(node, json!({"status": {}}), "the feature is off");
    }

    #[test]
    fn amounts_are_rounded_up_to_thousandths() {
        let mut node = json!({"status": {"capacity": {"cpu": "1u"}}});
        default(&mut node);
        assert_eq!(node["status"], json!({"capacity": {"cpu": "1m"}, "allocatable": {"cpu": "1m"}}));
    }

    #[test]
    fn the_first_subnet_stands_in_two_fields() {
        let filled = |spec: Value| {
            let mut node = json!({"spec": spec});
            default(&mut node);
            node["spec"].clone()
        };
        let one = json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]});
        assert_eq!(filled(json!({"podCIDR": "10.0.0.0/24"})), one);
        assert_eq!(
            filled(json!({"podCIDRs": ["10.0.0.0/24"]})),
            json!({"podCIDRs": ["10.0.0.0/24"], "podCIDR": "10.0.0.0/24"})
        );
        assert_eq!(filled(json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.1.0.0/24"]})), one);
    }

    #[test]
    fn subnets_and_identifiers_are_set_once() {
        let node = |spec: Value| json!({"spec": spec});
        let old = node(json!({"podCIDRs": ["10.0.0.0/24"], "providerID": "a", "externalID": "b"}));
        assert!(words(old.clone(), Some(old.clone())).is_empty());
        assert_eq!(
            words(node(json!({"podCIDRs": ["10.1.0.0/24"], "providerID": "c", "externalID": "d"})), Some(old)),
            [
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
                "spec.externalID: Forbidden: may not be updated",
                "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
            ]
        );
        assert!(words(node(json!({"podCIDRs": ["10.1.0.0/24"]})), Some(node(json!({})))).is_empty());
        assert!(words(node(json!({"podCIDRs": ["x"]})), None)[0].starts_with("spec.podCIDRs[0]: Invalid value"));
        let one_each = "may specify no more than one CIDR for each IP family";
        assert!(words(node(json!({"podCIDRs": ["10.0.0.0/24", "fd00::/64"]})), None).is_empty());
        for ranges in [json!(["10.0.0.0/24", "10.1.0.0/24"]), json!(["10.0.0.0/24", "fd00::/64", "fd01::/64"])] {
            let told = words(node(json!({"podCIDRs": ranges})), None);
            assert!(told.len() == 1 && told[0].ends_with(one_each), "{told:?}");
        }
        let told = words(node(json!({"podCIDRs": ["10.0.0.0/24", "x"]})), None);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[1].ends_with("error:invalid CIDR[1]: <nil> (invalid CIDR address: x)"), "{told:?}");
    }

    #[test]
    fn an_amount_is_told_by_its_name() {
        let words = words(json!({"status": {"capacity": {"cpu": "-1"}, "allocatable": {"": "-3"}}}), None);
        let paths: Vec<&str> = words.iter().map(|words| words.split(": ").next().unwrap()).collect();
        assert_eq!(paths, ["status.capacity.cpu", "status.allocatable[]"]);
    }

    #[test]
    fn configuration_from_objects_is_gone() {
        let sent = json!({"spec": {"configSource": {}}, "status": {"config": {"error": "x"}}});
        let mut new = sent.clone();
        prepare_node(&mut new, None);
        assert_eq!(new, json!({"spec": {}, "status": {}}));
        let mut reported = sent.clone();
        (KIND.prepare_status)(&mut reported, &json!({"status": {}}));
        assert_eq!(reported["status"], json!({}));
        let mut kept = sent.clone();
        prepare_node(&mut kept, Some(&sent));
        assert_eq!(kept, sent, "what is stored stays");
    }
}
