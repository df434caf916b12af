//! The downward API: the fields of a pod that its containers may read. Pure.

use std::{collections::BTreeMap, net::Ipv4Addr};

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::{quantity, spec};

/// A pod as its containers may see it.
#[derive(Clone, Copy)]
pub struct Downward<'a> {
    /// As the API has it now.
    pub pod: &'a Pod,
    /// The container that asks, if it is one.
    pub container: Option<&'a Container>,
    /// `None` until the sandbox is in the network.
    pub pod_ip: Option<Ipv4Addr>,
    /// `status.hostIP`.
    pub node_ip: Ipv4Addr,
    /// The machine, whose resources a container without limits has.
    pub cpus: i64,
    /// Bytes.
    pub memory: i64,
}

impl Downward<'_> {
    /// A `fieldRef`; `None` for a path there is not.
    pub fn field(&self, path: &str) -> Option<String> {
        let meta = &self.pod.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
            let map = match map {
                "metadata.labels" => &meta.labels,
                "metadata.annotations" => &meta.annotations,
                _ => return None,
            };
            return Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
        }
        let pod_spec = self.pod.spec.as_ref();
        Some(match path {
            "metadata.name" => text(&meta.name),
            "metadata.namespace" => text(&meta.namespace),
            "metadata.uid" => text(&meta.uid),
            "metadata.labels" => lines(&meta.labels),
            "metadata.annotations" => lines(&meta.annotations),
            "spec.nodeName" => pod_spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            "spec.serviceAccountName" => {
                pod_spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
            }
            "status.hostIP" | "status.hostIPs" => self.node_ip.to_string(),
            "status.podIP" | "status.podIPs" => self.pod_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            _ => return None,
        })
    }

    /// A `resourceFieldRef`, in units of its divisor, rounded up; `None` for a resource there is not.
    pub fn resource(&self, selector: &ResourceFieldSelector) -> Option<String> {
        let container = match &selector.container_name {
            Some(name) => spec::container(self.pod, name)?,
            None => self.container?,
        };
        let (kind, resource) = selector.resource.split_once('.')?;
        let whole_machine = match resource {
            "cpu" => self.cpus * 1000,
            "memory" => self.memory,
            _ => 0,
        };
        let limit = quantity::limit(container, resource);
        let value = match kind {
            "limits" => limit.unwrap_or(whole_machine),
            "requests" => quantity::request(container, resource).or(limit).unwrap_or_default(),
            _ => return None,
        };
        // In thousandths of a core for cpu, so that a divisor of 1m works: the unit of both is the same.
        let unit = selector
            .divisor
            .as_ref()
            .and_then(|divisor| quantity::in_unit_of(resource, divisor))
            .filter(|unit| *unit > 0);
        let divisor = unit.unwrap_or(if resource == "cpu" { 1000 } else { 1 });
        Some((value / divisor + i64::from(value % divisor != 0)).to_string())
    }
}

/// `key="value"` lines, the values escaped as Go does.
fn lines(map: &Option<BTreeMap<String, String>>) -> String {
    let lines = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_pod<T>(check: impl Fn(Downward<'_>) -> T) -> T {
        let pod = json!({
            "metadata": { "name": "p", "labels": { "b": "2", "a": "say \"x\"" }, "annotations": { "k/x": "v" } },
            "spec": { "nodeName": "n1", "containers": [{ "name": "app", "resources": { "limits": { "cpu": "1500m" }, "requests": { "memory": "1Mi" } } }] },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let container = spec::container(&pod, "app");
        check(Downward {
            pod: &pod,
            container,
            pod_ip: Some(Ipv4Addr::new(10, 244, 0, 2)),
            node_ip: Ipv4Addr::LOCALHOST,
            cpus: 4,
            memory: 1 << 20,
        })
    }

    #[test]
    fn fields_of_the_pod_are_found_by_their_paths() {
        with_pod(|downward| {
            for (path, value) in [
                ("metadata.name", "p"),
                ("metadata.labels['b']", "2"),
                ("metadata.annotations['k/x']", "v"),
                ("metadata.labels['none']", ""),
                ("metadata.labels", "a=\"say \\\"x\\\"\"\nb=\"2\""),
                ("spec.nodeName", "n1"),
                ("status.podIP", "10.244.0.2"),
            ] {
                assert_eq!(downward.field(path).as_deref(), Some(value), "{path}");
            }
            assert_eq!(downward.field("spec.containers"), None);
        });
    }

    #[test]
    fn resources_are_counted_in_their_divisor_and_rounded_up() {
        let value = |resource: &str, divisor: Option<&str>| {
            let selector = json!({ "resource": resource, "divisor": divisor });
            let selector: ResourceFieldSelector = serde_json::from_value(selector).unwrap();
            with_pod(|downward| downward.resource(&selector))
        };
        assert_eq!(value("limits.cpu", None).as_deref(), Some("2"));
        assert_eq!(value("limits.cpu", Some("1m")).as_deref(), Some("1500"));
        assert_eq!(value("requests.memory", Some("1Ki")).as_deref(), Some("1024"));
        assert_eq!(value("limits.memory", None).as_deref(), Some("1048576"));
        assert_eq!(value("usage.cpu", None), None);
    }
}
