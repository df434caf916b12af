//! Service: a name and an address for a changing set of pods.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{BuiltIn, Cell, Column, Storage, names, prepare};

mod defaults;
mod status;
mod update;
mod validation;

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    subresources: &["proxy", "status"],
    storage: Storage::Stored,
    default: |service| {
        defaults::service(service);
        status::default(service);
    },
    validate: validation::service,
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({"loadBalancer": {}}));
        defaults::families(new);
        update::complete(new, old);
    },
    columns: &[
        Column::name(),
        Column::text("Type", "ClusterIP, NodePort, LoadBalancer or ExternalName."),
        Column::text("Cluster-IP", "Address of the service inside the cluster."),
        Column::text("External-IP", "Addresses of the service outside the cluster."),
        Column::text("Port(s)", "Ports that the service exposes."),
        Column::age(),
        Column::wide("Selector", "Labels of the pods that stand behind the service."),
    ],
    cells,
    selectable: |o| {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        BTreeMap::from([("spec.clusterIP", text(&o["spec"]["clusterIP"])), ("spec.type", text(&o["spec"]["type"]))])
    },
    schema: "io.k8s.api.core.v1.Service",
    object_name: names::label_1035,
    content_first: |service| !validation::unprepared(service).is_empty(),
    deletion: crate::kinds::Deletion::RETURNING,
    creates_on_update: true,
    ..BuiltIn::PLAIN
};

fn cells(service: &Value) -> Vec<Cell> {
    let spec = &service["spec"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let cluster_ip = spec["clusterIP"].as_str().filter(|ip| !ip.is_empty()).unwrap_or("<none>");
    vec![
        Cell::name(service),
        Cell::text(text(&spec["type"])),
        Cell::text(cluster_ip),
        Cell::text(external_ip(service)),
        Cell::text(ports(spec)),
        Cell::age(service),
        Cell::text(selector(&spec["selector"])),
    ]
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let external = spec["externalIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let or = |list: Vec<&str>, none: &str| if list.is_empty() { none.to_owned() } else { list.join(",") };
    match spec["type"].as_str() {
        Some("ClusterIP" | "NodePort") => or(external.collect(), "<none>"),
        Some("LoadBalancer") => {
            let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
            let balanced: BTreeSet<&str> =
                ingress.filter_map(|i| i["ip"].as_str().or(i["hostname"].as_str())).filter(|s| !s.is_empty()).collect();
            or(balanced.into_iter().chain(external).collect(), "<pending>")
        }
        Some("ExternalName") => spec["externalName"].as_str().unwrap_or_default().to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// `80:30080/TCP,443/TCP`
fn ports(spec: &Value) -> String {
    let ports = spec["ports"].as_array().into_iter().flatten();
    let ports: Vec<String> = ports
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            match port["nodePort"].as_i64() {
                Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", port["port"]),
                _ => format!("{}/{protocol}", port["port"]),
            }
        })
        .collect();
    if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }
}

fn selector(selector: &Value) -> String {
    let mut terms: Vec<String> = selector
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    terms.sort();
    if terms.is_empty() { "<none>".to_owned() } else { terms.join(",") }
}
