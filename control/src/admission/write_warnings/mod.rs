//! What Kubernetes warns of when an object is written: fields that do nothing any more, and what is allowed but not
//! meant.
//!
//! | file | what it warns of |
//! |---|---|
//! | `pod_spec`, `containers` | pods, and the templates of workloads |
//! | `volume_paths` | files of volumes that take the place of each other |
//! | `node_labels` | labels of nodes that have other names now |
//! | `addresses` | addresses and ranges in a form that is to go |
//! | `network`, `storage` | Services and what is around them; volumes and claims |
//!
//! Source: the `WarningsOnCreate` and `WarningsOnUpdate` of Kubernetes' registries, whose words these are.

mod addresses;
mod containers;
mod network;
mod node_labels;
mod pod_spec;
mod storage;
mod volume_paths;

use serde_json::Value;

use crate::{
    kinds::{
        names,
        reading::{items, number, text},
    },
    request::Verb,
    request::WriteRequest,
    warnings,
};

/// Most pairs of one list that are compared: a list of very many entries is nobody's mistake, and must not take long.
const MOST_COMPARED: usize = 20_000;

/// Warns the client that is being answered.
pub fn tell(request: &WriteRequest<'_>, object: &Value) {
    // A new number of replicas is an update of the whole object.
    if request.subresource.is_some_and(|segment| segment != "scale") {
        return of_status(request, object).into_iter().for_each(warnings::add);
    }
    let created = match request.operation {
        Verb::Create => true,
        Verb::Update => false,
        _ => return,
    };
    of(request, object, created).into_iter().for_each(warnings::add);
}

fn of(request: &WriteRequest<'_>, object: &Value, created: bool) -> Vec<String> {
    let generation = |object: &Value| object["metadata"]["generation"].clone();
    let changed = created || request.old.is_none_or(|old| generation(old) != generation(object));
    let of_template =
        |path: &str, template: &Value| if changed { pod_spec::warnings(path, template) } else { Vec::new() };
    let spec = &object["spec"];
    match (&*request.kind.group, &*request.kind.kind) {
        ("", "Pod") if created => {
            let mut all: Vec<String> = long_name(object, "the Pod's hostname").into_iter().collect();
            all.extend(pod_spec::warnings("", object));
            all
        }
        ("apps", "Deployment" | "ReplicaSet") | ("", "ReplicationController") => {
            let named = created.then(|| long_name(object, "Pod names and hostnames")).flatten();
            // Kubernetes looks at the template that a controller had: its two are swapped there.
            let old = request.old.filter(|_| &*request.kind.kind == "ReplicationController");
            let template = &old.map_or(spec, |old| &old["spec"])["template"];
            named.into_iter().chain(of_template("spec.template.", template)).collect()
        }
        ("apps", "DaemonSet") => of_template("spec.template.", &spec["template"]),
        ("", "PodTemplate") => of_template("template.", &object["template"]),
        ("apps", "StatefulSet") => {
            let mut all = of_template("spec.template.", &spec["template"]);
            // Kubernetes' own path on updates.
            let child = if created { "" } else { ".Spec" };
            for (i, claim) in items(&spec["volumeClaimTemplates"]).enumerate() {
                all.extend(storage::claim_spec(&format!("spec.volumeClaimTemplates[{i}]{child}"), &claim["spec"]));
            }
            if number(spec, "revisionHistoryLimit") < 0 {
                all.push(
                    "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
                    recommended"
                        .to_owned(),
                );
            }
            all
        }
        ("batch", "Job") => {
            let named = created.then(|| long_name(object, "Pod names and hostnames")).flatten();
            let of_spec = if changed { job("spec", spec) } else { Vec::new() };
            named.into_iter().chain(of_spec).collect()
        }
        ("batch", "CronJob") => {
            let named = created.then(|| long_name(object, "Pod names and hostnames")).flatten();
            let of_spec = if changed { job("spec.jobTemplate.spec", &spec["jobTemplate"]["spec"]) } else { Vec::new() };
            let zone = (!created && text(spec, "schedule").contains("TZ")).then(|| {
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .to_owned()
            });
            named.into_iter().chain(of_spec).chain(zone).collect()
        }
        ("", "Node") => node(spec),
        ("", "Service") => network::service(object),
        ("", "Endpoints") => network::endpoints(object),
        ("networking.k8s.io", "Ingress") if created => network::ingress(object),
        ("networking.k8s.io", "NetworkPolicy") => network::policy(spec),
        ("", "PersistentVolume") => storage::volume(object),
        ("", "PersistentVolumeClaim") => storage::claim(object),
        ("storage.k8s.io", "StorageClass") => storage::class(object),
        ("storage.k8s.io", "CSIStorageCapacity") => node_labels::selector("nodeTopology", &object["nodeTopology"]),
        ("storage.k8s.io", "CSIDriver") => storage::driver(object, request.old),
        ("node.k8s.io", "RuntimeClass") => node_labels::runtime_class(&object["scheduling"]["nodeSelector"]),
        _ => Vec::new(),
    }
}

/// Addresses that a status reports.
fn of_status(request: &WriteRequest<'_>, object: &Value) -> Vec<String> {
    let status = &object["status"];
    match (&*request.kind.group, &*request.kind.kind, request.subresource) {
        ("", "Pod", Some("status")) => ["podIPs", "hostIPs"]
            .into_iter()
            .flat_map(|list| {
                let ips = items(&status[list]).enumerate();
                ips.filter_map(move |(i, ip)| addresses::ip(&format!("status.{list}[{i}].ip"), text(ip, "ip")))
            })
            .collect(),
        ("", "Service", Some("status")) => items(&status["loadBalancer"]["ingress"])
            .enumerate()
            .filter_map(|(i, ingress)| addresses::ip(&format!("status.loadBalancer.ingress[{i}]"), text(ingress, "ip")))
            .collect(),
        _ => Vec::new(),
    }
}

/// Of a name that is no DNS label.
fn long_name(object: &Value, place: &str) -> Option<String> {
    let wrong = names::label(text(&object["metadata"], "name"));
    (!wrong.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {place}, which can result in surprising behavior; a DNS label is \
            recommended: [{}]",
            wrong.join(" ")
        )
    })
}

fn job(path: &str, spec: &Value) -> Vec<String> {
    let huge = number(spec, "completions") > 100_000 && number(spec, "parallelism") > 10_000;
    let untracked = (huge && text(spec, "completionMode") == "Indexed").then(|| {
        format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
            Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        )
    });
    untracked.into_iter().chain(pod_spec::warnings(&format!("{path}.template."), &spec["template"])).collect()
}

fn node(spec: &Value) -> Vec<String> {
    let mut all = Vec::new();
    if !spec["configSource"].is_null() {
        all.push("spec.configSource: the feature is removed".to_owned());
    }
    if !text(spec, "externalID").is_empty() {
        all.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    for (i, range) in items(&spec["podCIDRs"]).enumerate() {
        all.extend(addresses::cidr(&format!("spec.podCIDRs[{i}]"), range.as_str().unwrap_or_default()));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jobs_and_nodes_are_warned_of() {
        let huge = json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001});
        assert!(job("spec", &huge)[0].starts_with("spec: In Indexed Jobs with a number of completions"));
        assert!(job("spec", &json!({"completionMode": "Indexed", "completions": 100_001})).is_empty());
        let spec = json!({"configSource": {}, "externalID": "x", "podCIDRs": ["10.0.0.1/24"]});
        assert_eq!(
            node(&spec),
            [
                "spec.configSource: the feature is removed",
                "spec.externalID: this field is deprecated, and is unused by Kubernetes",
                "spec.podCIDRs[0]: CIDR value \"10.0.0.1/24\" is ambiguous in this context (should be \"10.0.0.0/24\" or \
                \"10.0.0.1/32\"?)"
            ]
        );
        let name = |name: &str| long_name(&json!({"metadata": {"name": name}}), "the Pod's hostname");
        assert_eq!(name("web"), None);
        assert!(name("web.example").unwrap().starts_with("metadata.name: this is used in the Pod's hostname, which"));
    }
}
