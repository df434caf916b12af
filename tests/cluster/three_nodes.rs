//! What works across three nodes: pods, Services, NodePorts and names. Two nodes share a link, the third is behind a
//! router.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    datagrams,
    kit::{
        Result,
        cluster::{Cluster, NodePlacement, PATIENCE},
        images, wait,
    },
    service_names,
    suite::NamedTest,
};

/// The cluster that the tests of this file share.
pub fn start(datapath: &str) -> Result<Cluster> {
    let places = [
        NodePlacement { link: 1, number: 11 },
        NodePlacement { link: 1, number: 12 },
        NodePlacement { link: 2, number: 13 },
    ];
    let name = if datapath == "userspace" { "fl3u" } else { "fl3" };
    let cluster = Cluster::start_with(name, &places, &[], &["--datapath", datapath])?;
    for node in 1..=places.len() {
        cluster.apply(&client_pod(node))?;
    }
    cluster.apply(&web("web", 6))?;
    for node in 1..=places.len() {
        cluster.wait_for_condition(&format!("pod/client-{node}"), "Ready")?;
    }
    cluster.wait_for_rollout("web")?;
    // Tests must not depend on which of them runs first: each begins where every node serves `web`, by address and by
    // name.
    for client in 1..=places.len() {
        let line = "timeout 5 wget -q -O - http://web/";
        wait::until("every client to reach web", PATIENCE, || cluster.in_pod(&format!("client-{client}"), line))?;
    }
    wait::until("every node to serve all pods", PATIENCE, || inspect_shows_what_each_kernel_holds(&cluster))?;
    Ok(cluster)
}

/// Every test of this file by name.
pub const TESTS: &[NamedTest] = &[
    ("every_pod_answers_through_the_cluster_ip_from_every_node", every_pod_answers_through_the_cluster_ip),
    ("a_service_answers_by_its_dns_name_from_every_node", service_names::a_service_answers_by_its_dns_name),
    ("pods_reach_pods_on_every_node_with_their_true_address", pods_reach_pods_with_their_true_address),
    ("a_node_port_answers_on_every_node_from_outside_and_from_the_node", a_node_port_answers_everywhere),
    ("a_host_port_answers_on_its_node_from_outside_and_from_the_node", a_host_port_answers_on_its_node),
    ("a_service_without_endpoints_refuses_at_once", a_service_without_endpoints_refuses),
    ("datagrams_to_a_service_are_refused_until_somebody_serves", datagrams::refused_until_somebody_serves),
    ("endpoints_that_come_back_are_used_again", endpoints_that_come_back_are_used_again),
    ("client_ip_affinity_keeps_one_backend", client_ip_affinity_keeps_one_backend),
    ("pods_reach_the_outside_behind_their_nodes_address", pods_reach_the_outside),
    ("nodes_reach_pods_and_services", nodes_reach_pods_and_services),
    ("headless_and_external_names_resolve", service_names::headless_and_external_names_resolve),
    ("service_and_pod_records_have_srv_and_ptr", service_names::service_records_have_srv_and_ptr),
    ("inspect_shows_what_each_kernel_holds", inspect_shows_what_each_kernel_holds),
    ("logs_come_from_every_node", logs_come_from_every_node),
    ("a_rolling_update_loses_no_request", a_rolling_update_loses_no_request),
];

fn client_pod(node: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: client-{node}, labels: {{app: client}}}}\n\
         spec:\n  nodeName: node-{node}\n  terminationGracePeriodSeconds: 0\n\
         \x20 containers: [{{name: client, image: \"{}\", command: [sleep, \"1000000\"]}}]\n",
        images::WEB
    )
}

/// A Deployment with a NodePort Service of the same name on port 80.
pub fn web(name: &str, replicas: usize) -> String {
    format!(
        r#"apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: "{image}"
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
        lifecycle: {{preStop: {{exec: {{command: [sleep, "1"]}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: NodePort
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: http}}]
"#,
        image = images::WEB
    )
}

/// The address of a Service.
pub fn cluster_ip(cluster: &Cluster, service: &str) -> Result<String> {
    let object = cluster.get(&["service", service])?;
    Ok(object["spec"]["clusterIP"].as_str().ok_or("no clusterIP")?.to_owned())
}

fn node_port(cluster: &Cluster, service: &str) -> Result<u64> {
    let object = cluster.get(&["service", service])?;
    Ok(object["spec"]["ports"][0]["nodePort"].as_u64().ok_or("no nodePort")?)
}

/// Asks `url` from the pod `times` times; how often each answer came. A failed request is an error.
pub fn ask(cluster: &Cluster, pod: &str, url: &str, times: usize) -> Result<BTreeMap<String, usize>> {
    let line = format!("for i in $(seq {times}); do timeout 5 wget -q -O - {url} || echo FAILED; done");
    count(&cluster.in_pod(pod, &line)?)
}

fn count(answers: &str) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for answer in answers.lines() {
        *counts.entry(answer.trim().to_owned()).or_insert(0) += 1;
    }
    match counts.get("FAILED") {
        Some(failed) => Err(format!("{failed} requests failed: {counts:?}").into()),
        None => Ok(counts),
    }
}

/// Sends rounds of requests until every pod of `selector` has answered, and nobody else.
///
/// Backends are picked at random, so no fixed number of requests is sure to reach all of them. That one of 6 pods is
/// missing after all rounds of 40 has a probability below 1e-30.
fn expect_all_pods(
    cluster: &Cluster,
    selector: &str,
    mut ask: impl FnMut() -> Result<BTreeMap<String, usize>>,
) -> Result {
    const ROUNDS: usize = 10;
    let pods: BTreeSet<String> = cluster.pods(selector)?.into_iter().collect();
    let mut answered = BTreeSet::new();
    for _ in 0..ROUNDS {
        answered.extend(ask()?.into_keys());
        if answered == pods {
            return Ok(());
        }
        if !answered.is_subset(&pods) {
            break;
        }
    }
    Err(format!("{pods:?} run, {answered:?} answered").into())
}

fn every_pod_answers_through_the_cluster_ip(cluster: &Cluster) -> Result {
    let url = format!("http://{}/", cluster_ip(cluster, "web")?);
    for client in 1..=3 {
        expect_all_pods(cluster, "app=web", || ask(cluster, &format!("client-{client}"), &url, 40))?;
    }
    Ok(())
}

/// busybox httpd listens on IPv6 and writes an IPv4 client as `[::ffff:ADDRESS]`.
fn plain_address(text: &str) -> String {
    text.replace("[::ffff:", "").replace(']', "")
}

fn pods_reach_pods_with_their_true_address(cluster: &Cluster) -> Result {
    let pods = cluster.get(&["pods", "-l", "app=web"])?;
    for client in 1..=3 {
        let client = format!("client-{client}");
        let own = cluster.get(&["pod", &client])?["status"]["podIP"].as_str().unwrap_or_default().to_owned();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let address = pod["status"]["podIP"].as_str().unwrap_or_default();
            let answer =
                cluster.in_pod(&client, &format!("timeout 5 wget -q -O - http://{address}:8080/cgi-bin/who"))?;
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            if plain_address(answer.trim()) != format!("{name} {own}") {
                return Err(format!("{client} ({own}) asked {name} at {address}: {answer:?}").into());
            }
        }
    }
    Ok(())
}

fn a_node_port_answers_everywhere(cluster: &Cluster) -> Result {
    let port = node_port(cluster, "web")?;
    for node in &cluster.nodes {
        let line = |address: &str| {
            format!(
                "for i in $(seq 40); do timeout 5 busybox wget -q -O - http://{address}:{port}/ || echo FAILED; done"
            )
        };
        expect_all_pods(cluster, "app=web", || count(&cluster.outside.sh(&line(&node.address.to_string()))?))
            .map_err(|error| format!("from outside to {}: {error}", node.name))?;
        for address in [node.address.to_string(), "127.0.0.1".to_owned()] {
            expect_all_pods(cluster, "app=web", || count(&node.host.sh(&line(&address))?))
                .map_err(|error| format!("from {} to {address}: {error}", node.name))?;
        }
    }
    Ok(())
}

fn a_host_port_answers_on_its_node(cluster: &Cluster) -> Result {
    const PORT: u16 = 8765;
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: on-host}}\n\
         spec:\n  nodeName: node-3\n  terminationGracePeriodSeconds: 0\n\
         \x20 containers: [{{name: web, image: \"{}\", ports: [{{containerPort: 8080, hostPort: {PORT}}}]}}]\n",
        images::WEB
    ))?;
    cluster.wait_for_condition("pod/on-host", "Ready")?;
    let (own, other) = (&cluster.nodes[2], &cluster.nodes[0]);
    let ask = |address: &str| format!("timeout 5 busybox wget -q -O - http://{address}:{PORT}/");
    let address = own.address.to_string();
    wait::until("the host port to answer outside", PATIENCE, || cluster.outside.sh(&ask(&address)))?;
    let mut answers = vec![("the other node", other.host.sh(&ask(&address))?)];
    for at in [&address, "127.0.0.1"] {
        answers.push((at, own.host.sh(&ask(at))?));
    }
    for client in ["client-1", "client-3"] {
        answers.push((client, cluster.in_pod(client, &format!("timeout 5 wget -q -O - http://{address}:{PORT}/"))?));
    }
    if let Some((from, answer)) = answers.iter().find(|(_, answer)| answer.trim() != "on-host") {
        return Err(format!("{from} was answered {answer:?}").into());
    }
    if other.host.sh(&ask(&other.address.to_string())).is_ok() {
        return Err(format!("{} answers too, where the pod is not", other.name).into());
    }
    let inspection = crate::kit::run(&mut cluster.fairlead(&["inspect", "pod", "on-host"]))?;
    if !inspection.contains(&format!("HostPort this node:{PORT}/TCP")) {
        return Err(inspection.into());
    }
    crate::kit::run(&mut cluster.fairlead(&["delete", "pod", "on-host"]))?;
    wait::until("a refusal", PATIENCE, || match cluster.outside.sh(&ask(&address)) {
        Ok(answer) => Err(format!("still {answer:?}").into()),
        Err(_) => Ok(()),
    })
}

fn a_service_without_endpoints_refuses(cluster: &Cluster) -> Result {
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: empty}\n\
         spec: {selector: {app: nobody}, ports: [{port: 80}]}\n",
    )?;
    let address = cluster_ip(cluster, "empty")?;
    wait::until("a refusal", PATIENCE, || {
        let answer = cluster.in_pod("client-1", &format!("timeout 5 wget -O - http://{address}/ 2>&1 || true"))?;
        if answer.contains("refused") { Ok(()) } else { Err(answer.into()) }
    })
}

fn endpoints_that_come_back_are_used_again(cluster: &Cluster) -> Result {
    cluster.apply(&web("phoenix", 1))?;
    cluster.wait_for_rollout("phoenix")?;
    let address = cluster_ip(cluster, "phoenix")?;
    let url = format!("http://{address}/");
    let answers = |wanted: bool| {
        wait::until(&format!("answering to be {wanted}"), PATIENCE, || {
            let is = ask(cluster, "client-2", &url, 1);
            if is.is_ok() == wanted { Ok(()) } else { Err(format!("{is:?}").into()) }
        })
    };
    answers(true)?;
    crate::kit::run(&mut cluster.fairlead(&["scale", "deployment/phoenix", "--replicas=0"]))?;
    answers(false)?;
    crate::kit::run(&mut cluster.fairlead(&["scale", "deployment/phoenix", "--replicas=2"]))?;
    answers(true)?;
    crate::kit::run(&mut cluster.fairlead(&["delete", "deployment/phoenix", "service/phoenix"]))?;
    Ok(())
}

fn client_ip_affinity_keeps_one_backend(cluster: &Cluster) -> Result {
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: sticky}\n\
         spec: {selector: {app: web}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: http}]}\n",
    )?;
    let url = format!("http://{}/", cluster_ip(cluster, "sticky")?);
    wait::until("the sticky Service to answer", PATIENCE, || ask(cluster, "client-1", &url, 1))?;
    for client in 1..=3 {
        let counts = ask(cluster, &format!("client-{client}"), &url, 30)?;
        if counts.len() != 1 {
            return Err(format!("client-{client} was sent to several backends: {counts:?}").into());
        }
    }
    Ok(())
}

fn pods_reach_the_outside(cluster: &Cluster) -> Result {
    let www = cluster.dir.path().join("outside-www");
    std::fs::create_dir_all(www.join("cgi-bin"))?;
    let who = www.join("cgi-bin/who");
    std::fs::write(&who, "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' \"$REMOTE_ADDR\"\n")?;
    std::fs::set_permissions(&who, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut command = cluster.outside.command("busybox");
    command.args(["httpd", "-f", "-p", "8088", "-h"]).arg(&www);
    let _server = crate::kit::process::Process::start("outside-httpd", command, cluster.dir.path())?;
    for (index, node) in cluster.nodes.iter().enumerate() {
        let client = format!("client-{}", index + 1);
        let address = crate::kit::lab::Lab::address(1, 200);
        let seen = wait::until("the outside server", PATIENCE, || {
            cluster.in_pod(&client, &format!("timeout 5 wget -q -O - http://{address}:8088/cgi-bin/who"))
        })?;
        if plain_address(seen.trim()) != node.address.to_string() {
            return Err(format!("{client} on {} was seen as {seen}", node.address).into());
        }
    }
    Ok(())
}

fn nodes_reach_pods_and_services(cluster: &Cluster) -> Result {
    let address = cluster_ip(cluster, "web")?;
    let pods = cluster.get(&["pods", "-l", "app=web"])?;
    for node in &cluster.nodes {
        for pod in pods["items"].as_array().into_iter().flatten() {
            let pod = pod["status"]["podIP"].as_str().unwrap_or_default();
            node.host.sh(&format!("timeout 5 busybox wget -q -O - http://{pod}:8080/"))?;
        }
        node.host.sh(&format!("timeout 5 busybox wget -q -O - http://{address}/"))?;
    }
    Ok(())
}

fn inspect_shows_what_each_kernel_holds(cluster: &Cluster) -> Result {
    let text = crate::kit::run(&mut cluster.fairlead(&["inspect", "service", "web", "-o", "json"]))?;
    let inspection: serde_json::Value = serde_json::from_str(&text)?;
    let text = inspection.to_string();
    for node in &cluster.nodes {
        if !text.contains(&node.name) {
            return Err(format!("{} is missing in {text}", node.name).into());
        }
    }
    for pod in cluster.get(&["pods", "-l", "app=web"])?["items"].as_array().into_iter().flatten() {
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        if text.matches(address).count() < cluster.nodes.len() {
            return Err(format!("{address} is not held by every node: {text}").into());
        }
    }
    let human = crate::kit::run(&mut cluster.fairlead(&["inspect", "service", "web"]))?;
    if human.contains("web.default.svc.cluster.local") { Ok(()) } else { Err(human.into()) }
}

fn logs_come_from_every_node(cluster: &Cluster) -> Result {
    for node in 1..=3 {
        let name = format!("talker-{node}");
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n\
             spec:\n  nodeName: node-{node}\n  restartPolicy: Never\n\
             \x20 containers: [{{name: talker, image: \"{}\", command: [sh, -c, \"echo one; echo two\"]}}]\n",
            images::WEB
        ))?;
        wait::until("the log", PATIENCE, || {
            let log = crate::kit::run(&mut cluster.fairlead(&["logs", &name]))?;
            let by_kubectl = cluster.kubectl(&["logs", &name])?;
            if log == "one\ntwo\n" && by_kubectl == log {
                Ok(())
            } else {
                Err(format!("{log:?} {by_kubectl:?}").into())
            }
        })?;
        wait::until("the pod to have succeeded", PATIENCE, || {
            let pod = cluster.get(&["pod", &name])?;
            if pod["status"]["phase"] == "Succeeded" { Ok(()) } else { Err(pod["status"].to_string().into()) }
        })?;
        crate::kit::run(&mut cluster.fairlead(&["delete", "pod", &name]))?;
    }
    Ok(())
}

fn a_rolling_update_loses_no_request(cluster: &Cluster) -> Result {
    cluster.apply(&web("rolling", 3))?;
    cluster.wait_for_rollout("rolling")?;
    let address = cluster_ip(cluster, "rolling")?;
    let load = "rm -f /tmp/stop /tmp/failed /tmp/ok; while [ ! -e /tmp/stop ]; do \
                if timeout 5 wget -q -O /dev/null http://ADDRESS/; then echo >> /tmp/ok; else echo >> /tmp/failed; \
                fi; done";
    std::thread::scope(|scope| -> Result {
        let loading = scope.spawn(|| cluster.in_pod("client-2", &load.replace("ADDRESS", &address)));
        let update = (|| -> Result {
            wait::until("the load to run", PATIENCE, || cluster.in_pod("client-2", "test -s /tmp/ok").map(|_| ()))?;
            crate::kit::run(&mut cluster.fairlead(&["rollout", "restart", "deployment/rolling"]))?;
            cluster.wait_for_rollout("rolling")
        })();
        cluster.in_pod("client-2", "touch /tmp/stop")?;
        loading.join().map_err(|_| "the load panicked")??;
        update
    })?;
    let failed = cluster.in_pod("client-2", "cat /tmp/failed 2>/dev/null | wc -l")?;
    let ok = cluster.in_pod("client-2", "cat /tmp/ok | wc -l")?;
    crate::kit::run(&mut cluster.fairlead(&["delete", "deployment/rolling", "service/rolling"]))?;
    if failed.trim() == "0" {
        Ok(())
    } else {
        Err(format!("{} requests failed, {} went well", failed.trim(), ok.trim()).into())
    }
}
