//! Bad input gets a clear Status that names the field, and nothing of it is stored.

use crate::{
    kit::{
        Result,
        cluster::{Cluster, with_input},
        run,
    },
    suite::NamedTest,
};

/// A control service alone: nothing here needs a node.
pub fn start() -> Result<Cluster> {
    let cluster = Cluster::start("flbad", &[])?;
    cluster.apply(SERVICE)?;
    cluster.apply(DEPLOYMENT)?;
    Ok(cluster)
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: taken}\n\
                       spec: {type: NodePort, selector: {a: b}, ports: [{port: 80, nodePort: 30500}]}\n";
const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: fixed}\nspec:\n  replicas: 0\n\
                          \x20 selector: {matchLabels: {app: fixed}}\n\
                          \x20 template: {metadata: {labels: {app: fixed}}, spec: {containers: [{name: c, image: \
                          i}]}}\n";

pub const TESTS: &[NamedTest] = &[
    ("malformed_yaml_names_file_document_and_line", malformed_yaml),
    ("a_good_document_beside_a_bad_one_is_applied", good_beside_bad),
    ("unknown_fields_are_refused", |c| {
        refused(c, "unknown", "spec: {ports: [{port: 80}], selectr: {}}", &["unknown field", "spec.selectr"])
    }),
    ("duplicate_fields_are_refused", duplicate_fields),
    ("wrong_types_are_refused", |c| refused(c, "typed", "spec: {ports: [{port: eighty}]}", &["port"])),
    ("invalid_names_are_refused", |c| {
        refused(c, "Not_A_Name", "spec: {ports: [{port: 80}]}", &["metadata.name", "Not_A_Name"])
    }),
    ("a_port_out_of_range_is_refused", |c| {
        refused(c, "ported", "spec: {ports: [{port: 70000}]}", &["spec.ports[0].port", "between 1 and 65535"])
    }),
    ("a_node_port_twice_is_refused", |c| {
        refused(
            c,
            "second",
            "spec: {type: NodePort, ports: [{port: 80, nodePort: 30500}]}",
            &["30500", "already allocated"],
        )
    }),
    ("a_cluster_ip_outside_the_range_is_refused", |c| {
        refused(c, "far", "spec: {clusterIP: 192.168.7.7, ports: [{port: 80}]}", &["192.168.7.7", "10.96.0.0/12"])
    }),
    ("invalid_labels_are_refused", invalid_labels),
    ("a_selector_must_match_its_template", selector_mismatch),
    ("an_immutable_field_stays", immutable_field),
    ("a_stale_resource_version_conflicts", stale_resource_version),
    ("nobody_reads_without_credentials", nobody_reads_without_credentials),
];

/// A Service `name` with the body `spec` is refused by both CLIs with all of `said`, and is not stored.
fn refused(cluster: &Cluster, name: &str, spec: &str, said: &[&str]) -> Result {
    refused_document(cluster, &format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n{spec}\n"), said)?;
    absent(cluster, "service", name)
}

fn refused_document(cluster: &Cluster, document: &str, said: &[&str]) -> Result {
    let mut kubectl = cluster.kubectl_command("kubectl");
    kubectl.args(["apply", "-f", "-"]);
    for command in [cluster.fairlead(&["apply", "-f", "-"]), kubectl] {
        let shown = format!("{command:?}");
        match with_input(command, document) {
            Ok(output) => return Err(format!("{shown} accepted it: {output}").into()),
            Err(error) => {
                let error = error.to_string();
                // kubectl itself finds duplicate keys and unreadable YAML, in its own words.
                if let Some(missing) = said.iter().find(|part| !error.contains(*part)) {
                    return Err(format!("{shown}: {missing:?} is not in: {error}").into());
                }
            }
        }
    }
    Ok(())
}

fn absent(cluster: &Cluster, kind: &str, name: &str) -> Result {
    let found = cluster.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "name"])?;
    if found.is_empty() { Ok(()) } else { Err(format!("it was stored: {found}").into()) }
}

fn malformed_yaml(cluster: &Cluster) -> Result {
    let file = cluster.dir.path().join("broken.yaml");
    std::fs::write(&file, format!("{SERVICE}---\napiVersion: v1\nkind: Service\nmetadata: {{name: torn\nspec: [\n"))?;
    let path = file.display().to_string();
    match run(&mut cluster.fairlead(&["apply", "-f", &path])) {
        Ok(output) => Err(format!("accepted: {output}").into()),
        Err(error) => {
            let error = error.to_string();
            for part in ["broken.yaml", "document 2", "line"] {
                if !error.contains(part) {
                    return Err(format!("{part:?} is not in: {error}").into());
                }
            }
            absent(cluster, "service", "torn")
        }
    }
}

fn good_beside_bad(cluster: &Cluster) -> Result {
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\ndata: {a: b}\n";
    let both = format!(
        "{config}---\napiVersion: v1\nkind: Service\nmetadata: {{name: bad}}\nspec: {{ports: [{{port: 0}}]}}\n"
    );
    match cluster.apply(&both) {
        Ok(output) => return Err(format!("accepted: {output}").into()),
        Err(error) if !error.to_string().contains("configmap/good created") => return Err(error),
        Err(_) => {}
    }
    absent(cluster, "service", "bad")?;
    cluster.get(&["configmap", "good"]).map(|_| ())
}

/// kubectl itself keeps the last of two equal YAML keys and says nothing, so the API is asked with JSON.
fn duplicate_fields(cluster: &Cluster) -> Result {
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: double}\n\
        spec:\n  ports: [{port: 80}]\n  ports: [{port: 81}]\n";
    let json = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "double"},
        "spec": {"ports": [{"port": 80}], "ports": [{"port": 81}]}}"#;
    let path = "/api/v1/namespaces/default/services?fieldValidation=Strict";
    let mut raw = cluster.kubectl_command("kubectl");
    raw.args(["create", "--raw", path, "-f", "-"]);
    for (command, document, said) in
        [(cluster.fairlead(&["apply", "-f", "-"]), yaml, "duplicate"), (raw, json, "duplicate field \"spec.ports\"")]
    {
        match with_input(command, document) {
            Ok(output) => return Err(format!("accepted: {output}").into()),
            Err(error) if !error.to_string().contains(said) => {
                return Err(format!("{said:?} is not in: {error}").into());
            }
            Err(_) => absent(cluster, "service", "double")?,
        }
    }
    Ok(())
}

fn invalid_labels(cluster: &Cluster) -> Result {
    let document = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: labelled, labels: {app: \"two words\"}}\n";
    refused_document(cluster, document, &["metadata.labels", "two words"])?;
    absent(cluster, "configmap", "labelled")
}

fn selector_mismatch(cluster: &Cluster) -> Result {
    let document =
        DEPLOYMENT.replace("name: fixed", "name: mismatch").replace("labels: {app: fixed}", "labels: {app: other}");
    refused_document(cluster, &document, &["selector", "does not match template"])?;
    absent(cluster, "deployment", "mismatch")
}

fn immutable_field(cluster: &Cluster) -> Result {
    let changed = DEPLOYMENT.replace("app: fixed", "app: moved");
    refused_document(cluster, &changed, &["spec.selector", "field is immutable"])?;
    let stored = cluster.get(&["deployment", "fixed"])?;
    if stored["spec"]["selector"]["matchLabels"]["app"] == "fixed" { Ok(()) } else { Err(stored.to_string().into()) }
}

fn stale_resource_version(cluster: &Cluster) -> Result {
    cluster.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: stale}\ndata: {a: \"1\"}\n")?;
    let mut old = cluster.get(&["configmap", "stale"])?;
    cluster.kubectl(&["label", "configmap", "stale", "touched=yes"])?;
    old["data"]["a"] = "2".into();
    let mut replace = cluster.kubectl_command("kubectl");
    replace.args(["replace", "-f", "-"]);
    match with_input(replace, &old.to_string()) {
        Ok(output) => Err(format!("accepted: {output}").into()),
        Err(error) if error.to_string().contains("the object has been modified") => {
            let stored = cluster.get(&["configmap", "stale"])?;
            if stored["data"]["a"] == "1" { Ok(()) } else { Err(stored.to_string().into()) }
        }
        Err(error) => Err(error),
    }
}

fn nobody_reads_without_credentials(cluster: &Cluster) -> Result {
    let host = &cluster.control_host;
    for path in ["/api/v1/namespaces/kube-system/secrets", "/api/v1/pods", "/apis", "/openapi/v3"] {
        let line = format!("curl -sk -m 10 -w '\\n%{{http_code}}' https://172.31.1.1:6443{path}");
        let answer = host.sh(&line)?;
        if !answer.ends_with("403") {
            return Err(format!("{path}: {answer}").into());
        }
        let with_token = format!("{line} -H 'Authorization: Bearer abcdef.0123456789abcdef'");
        let answer = host.sh(&with_token)?;
        if !answer.ends_with("401") {
            return Err(format!("{path} with a made-up token: {answer}").into());
        }
    }
    Ok(())
}
