//! ExtendedResourceToleration: pods tolerate the taints of nodes that are set aside for the devices that they ask for.
//!
//! Source: `plugin/pkg/admission/extendedresourcetoleration`.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::{
    plugins::{Mutate, Plugin},
    toleration::Toleration,
};
use crate::{
    admission_plugins::PluginName,
    kinds::{
        reading::{entries, items},
        resource_name,
    },
};

/// New and changed pods get the tolerations.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Now(|context, pod| {
        if context.puts(("", "Pod")) {
            add(&mut pod["spec"]);
        }
        Ok(())
    })),
    ..Plugin::named(PluginName::ExtendedResourceToleration)
};

/// Adds a toleration for each extended resource that a container asks for; one that is about the same taints for a time
/// becomes one for good.
pub(super) fn add(spec: &mut Value) {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| items(&spec[list]));
    let requested = containers.flat_map(|container| entries(&container["resources"]["requests"]));
    let extended: BTreeSet<String> =
        requested.filter(|(name, _)| resource_name::is_extended(name)).map(|(name, _)| name.clone()).collect();
    if extended.is_empty() {
        return;
    }
    if !spec["tolerations"].is_array() {
        spec["tolerations"] = Value::Array(Vec::new());
    }
    let Some(list) = spec["tolerations"].as_array_mut() else { return };
    let mut places: HashMap<Toleration, Vec<usize>> = HashMap::new();
    for (i, known) in list.iter().enumerate() {
        places.entry(Toleration::read(known).for_good()).or_default().push(i);
    }
    for name in extended {
        let toleration = Toleration::of_no_schedule(&name);
        let json = toleration.to_json();
        match places.get(&toleration) {
            Some(places) => places.iter().for_each(|i| list[*i] = json.clone()),
            None => list.push(json),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_tolerate_the_taints_of_what_they_ask_for() {
        let asks = |names: &[&str]| {
            let requests: serde_json::Map<String, Value> =
                names.iter().map(|name| ((*name).into(), json!("1"))).collect();
            json!({"name": "c", "resources": {"requests": requests}})
        };
        let own = json!({"key": "b.io/gpu", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 3});
        let mut spec = json!({"containers": [asks(&["c.io/nic", "cpu", "kubernetes.io/x"])],
            "initContainers": [asks(&["b.io/gpu"])], "tolerations": [own, {"key": "other"}]});
        add(&mut spec);
        let of = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        assert_eq!(spec["tolerations"], json!([of("b.io/gpu"), {"key": "other"}, of("c.io/nic")]));
        let before = spec.clone();
        add(&mut spec);
        assert_eq!(spec, before);
        let mut bare = json!({"containers": [asks(&["b.io/gpu"])]});
        add(&mut bare);
        assert_eq!(bare["tolerations"], json!([of("b.io/gpu")]));
        let mut plain = json!({"containers": [asks(&["cpu"])]});
        add(&mut plain);
        assert!(plain.get("tolerations").is_none());
    }
}
