//! Containers: annotations that are fields now, fractions of bytes, variables and ports that hide each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Value, json};

use super::{MOST_COMPARED, pod_spec::fraction};
use crate::{
    kinds::{
        pod::CONTAINER_LISTS,
        reading::{items, number, text},
    },
    warnings,
};

const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The path of a container: `spec.containers[0]`.
#[derive(Clone, Copy)]
struct ContainerPath<'a> {
    path: &'a str,
    list: &'static str,
    index: usize,
}

impl fmt::Display for ContainerPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}spec.{}[{}]", self.path, self.list, self.index)
    }
}

/// The path of a port: the container's, and the place in its list.
#[derive(Clone, Copy)]
struct PortPath<'a>(ContainerPath<'a>, usize);

impl fmt::Display for PortPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.ports[{}]", self.0, self.1)
    }
}

/// Of all containers of a spec. `path` is empty for a pod, or that of a template with a dot at its end.
pub fn warnings(path: &str, spec: &Value, annotations: &Value) -> Vec<String> {
    let containers = || {
        CONTAINER_LISTS.into_iter().flat_map(|list| {
            let place = move |(index, container)| (ContainerPath { path, list, index }, container);
            items(&spec[list]).enumerate().map(place)
        })
    };
    let mut all = Vec::new();
    for (place, container) in containers() {
        all.extend(old_annotations(path, spec, container, annotations));
        for name in ["memory", "ephemeral-storage"] {
            for list in ["limits", "requests"] {
                let amount = &container["resources"][list][name];
                all.extend(fraction(|| format!("{place}.resources.{list}[{name}]"), amount));
            }
        }
        all.extend(hidden_variables(place, container));
    }
    let ports: Vec<(PortPath<'_>, &Value)> = containers()
        .flat_map(|(place, container)| {
            items(&container["ports"]).enumerate().map(move |(i, port)| (PortPath(place, i), port))
        })
        .collect();
    all.extend(overlapping_ports(&ports));
    all.extend(port_names(&ports));
    all
}

fn old_annotations(path: &str, spec: &Value, container: &Value, annotations: &Value) -> Vec<String> {
    let mut all = Vec::new();
    if annotations.is_null() {
        return all;
    }
    let name = text(container, "name");
    let context = &container["securityContext"];
    let key = format!("{SECCOMP}{name}");
    if context["seccompProfile"].is_null() && annotations[&key].is_string() {
        all.push(format!(
            "{path}metadata.annotations[{key}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"
        ));
    }
    let key = format!("{APP_ARMOR}{name}");
    // In a pod it was made a field when it was created.
    if let Some(said) = annotations[&key].as_str().filter(|_| !path.is_empty())
        && context["appArmorProfile"].is_null()
        && app_armor(said).as_ref() != spec["securityContext"].get("appArmorProfile")
    {
        all.push(format!(
            "{path}metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
        ));
    }
    all
}

/// The field that means the same as an annotation.
fn app_armor(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        other => {
            let profile = other.strip_prefix("localhost/").filter(|profile| !profile.is_empty())?;
            Some(json!({"type": "Localhost", "localhostProfile": profile}))
        }
    }
}

fn hidden_variables(place: ContainerPath<'_>, container: &Value) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (i, variable) in items(&container["env"]).enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        if seen.insert(name) {
            continue;
        }
        // A value that adds to the previous one is meant so.
        let before = format!("$({name})");
        if !variable["valueFrom"].is_null() || value == before || !value.contains(&before) {
            all.push(format!(
                "{place}.env[{i}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
    all
}

/// Where a port is named, and the port and the address of the host that it has.
type HostPort<'a> = (PortPath<'a>, i64, &'a str);

fn overlapping_ports(ports: &[(PortPath<'_>, &Value)]) -> Vec<String> {
    let mut known: BTreeMap<(i64, &str), Vec<HostPort<'_>>> = BTreeMap::new();
    let mut all = Vec::new();
    let mut left = MOST_COMPARED;
    for (place, port) in ports {
        let (own_ip, own_port) = (text(port, "hostIP"), number(port, "hostPort"));
        if !own_ip.is_empty() && own_port == 0 {
            all.push(format!(
                "{place}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{own_ip}}}",
                text(port, "name"),
                number(port, "containerPort"),
                text(port, "protocol")
            ));
        }
        let others = known.entry((number(port, "containerPort"), text(port, "protocol"))).or_default();
        let compared = others.len().min(left);
        left = left.saturating_sub(compared);
        for (other, host_port, host_ip) in others.iter().take(compared).copied() {
            if all.len() >= warnings::MOST {
                return all;
            }
            let how = if own_ip == host_ip && own_port == host_port {
                "duplicate"
            } else if own_port == 0 || host_port == 0 {
                "overlapping"
            } else if own_port == host_port && own_ip.is_empty() != host_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            all.push(format!("{place}: {how} port definition with {other}"));
        }
        others.push((*place, own_port, own_ip));
    }
    all
}

fn port_names(ports: &[(PortPath<'_>, &Value)]) -> Vec<String> {
    let mut first: BTreeMap<&str, PortPath<'_>> = BTreeMap::new();
    let mut all = Vec::new();
    for (place, port) in ports {
        let name = text(port, "name");
        match first.get(name) {
            _ if name.is_empty() => {}
            Some(other) => all.push(format!(
                "{place}: duplicate port name {name:?} with {other}, services and probes that select ports by name will \
                use {other}"
            )),
            None => drop(first.insert(name, *place)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(container: Value) -> Vec<String> {
        warnings("", &json!({"containers": [container]}), &Value::Null)
    }

    #[test]
    fn a_variable_may_add_to_the_one_before_but_not_hide_it() {
        let env = |second: Value| told(json!({"env": [{"name": "A", "value": "1"}, second]}));
        let hidden =
            ["spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"];
        assert_eq!(env(json!({"name": "A", "value": "2"})), hidden);
        assert_eq!(env(json!({"name": "A", "value": "$(A)"})), hidden);
        assert!(env(json!({"name": "A", "value": "$(A):2"})).is_empty());
    }

    #[test]
    fn ports_do_not_take_the_place_of_each_other() {
        let ports = |second: Value| {
            let first = json!({"name": "a", "containerPort": 80, "protocol": "TCP", "hostPort": 8080});
            told(json!({"ports": [first, second]}))
        };
        let second = |value: Value| {
            let mut port = json!({"containerPort": 80, "protocol": "TCP"});
            port.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
            ports(port)
        };
        let place = "spec.containers[0].ports";
        assert_eq!(
            second(json!({"hostPort": 8080})),
            [format!("{place}[1]: duplicate port definition with {place}[0]")]
        );
        assert_eq!(second(json!({})), [format!("{place}[1]: overlapping port definition with {place}[0]")]);
        assert_eq!(
            second(json!({"hostPort": 8080, "hostIP": "1.1.1.1"})),
            [format!("{place}[1]: dangerously ambiguous port definition with {place}[0]")]
        );
        assert!(second(json!({"hostPort": 81})).is_empty());
        assert_eq!(
            ports(json!({"name": "a", "containerPort": 81, "protocol": "UDP", "hostIP": "1.1.1.1"})),
            [
                format!(
                    "{place}[1]: hostIP set without hostPort: {{Name:a HostPort:0 ContainerPort:81 Protocol:UDP \
                    HostIP:1.1.1.1}}"
                ),
                format!(
                    "{place}[1]: duplicate port name \"a\" with {place}[0], services and probes that select ports by name \
                    will use {place}[0]"
                )
            ]
        );
    }

    #[test]
    fn annotations_are_fields_now() {
        let annotations = json!({"container.seccomp.security.alpha.kubernetes.io/c": "x",
            "container.apparmor.security.beta.kubernetes.io/c": "runtime/default"});
        let mut spec = json!({"containers": [{"name": "c"}]});
        let told = warnings("spec.template.", &spec, &annotations);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].ends_with("deprecated since v1.30; use the \"appArmorProfile\" field instead"));
        assert_eq!(warnings("", &spec, &annotations).len(), 1);
        spec["securityContext"] = json!({"appArmorProfile": {"type": "RuntimeDefault"}});
        assert_eq!(warnings("spec.template.", &spec, &annotations).len(), 1);
    }
}
