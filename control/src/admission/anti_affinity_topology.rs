//! LimitPodHardAntiAffinityTopology: pods may require to be apart from others by host alone. By zone, say, one pod
//! would keep all others out of a part of the cluster.
//!
//! Source: `plugin/pkg/admission/antiaffinity`, whose words these are.

use serde_json::Value;

use super::plugins::{AdmissionContext, Plugin, Validate};
use crate::{
    admission_plugins::PluginName,
    kinds::reading::{items, text},
    status::Status,
};

/// Pods are required to be apart by host alone.
pub static PLUGIN: Plugin =
    Plugin { validate: Some(Validate::Now(validate)), ..Plugin::named(PluginName::LimitPodHardAntiAffinityTopology) };

const HOST: &str = "kubernetes.io/hostname";

fn validate(context: &AdmissionContext<'_>, pod: &Value) -> Result<(), Status> {
    match wider_topology(&pod["spec"]).filter(|_| context.puts(("", "Pod"))) {
        None => Ok(()),
        Some(key) => Err(context.forbidden(&format!(
            "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST} is allowed"
        ))),
    }
}

/// The first topology other than that of hosts.
fn wider_topology(spec: &Value) -> Option<&str> {
    let terms = &spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    items(terms).map(|term| text(term, "topologyKey")).find(|key| *key != HOST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_required_is_limited_to_hosts() {
        let spec = |rule: &str, keys: &[&str]| {
            let terms: Vec<Value> = keys.iter().map(|key| json!({"topologyKey": key})).collect();
            json!({"affinity": {"podAntiAffinity": {rule: terms}}})
        };
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        assert_eq!(wider_topology(&spec(required, &[HOST, "zone", "rack"])), Some("zone"));
        assert_eq!(wider_topology(&spec(required, &[HOST])), None);
        assert_eq!(wider_topology(&spec("preferredDuringSchedulingIgnoredDuringExecution", &["zone"])), None);
        assert_eq!(wider_topology(&json!({})), None);
    }
}
