//! A node whose container runtime or control service is away. Each test has a cluster of its own.

use crate::{
    kit::{
        Result,
        cluster::{Cluster, NodePlacement, PATIENCE},
        images::WEB,
        lab::Lab,
        process::Process,
        wait,
    },
    three_nodes::web,
};

const ONE: [NodePlacement; 1] = [NodePlacement { link: 1, number: 11 }];

/// Without Docker the node is NotReady and says why, in its conditions and in `/readyz`; with Docker it is Ready again.
pub fn dead_docker_is_not_ready() -> Result {
    let mut cluster = Cluster::start("flnodock", &ONE)?;
    let ask = |cluster: &Cluster, path: &str| {
        cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/node-1/proxy{path}")])
    };
    let verbose = ask(&cluster, "/readyz?verbose")?;
    for check in ["datapath", "network", "dns", "runtime", "api-watch", "task-heartbeat"] {
        if !verbose.contains(&format!("[+]{check} ok")) {
            return Err(format!("{check} does not pass: {verbose}").into());
        }
    }
    let metrics = ask(&cluster, "/metrics")?;
    for name in
        ["kubeproxy_sync_proxy_rules_duration_seconds_count", "kubelet_running_pods", "coredns_dns_requests_total"]
    {
        if !metrics.contains(name) {
            return Err(format!("no {name} in {metrics}").into());
        }
    }
    cluster.nodes[0].docker.stop()?;
    wait::until("the node to be NotReady because of Docker", PATIENCE, || {
        let node = cluster.get(&["node/node-1"])?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_down = |condition: &serde_json::Value| {
            let message = condition["message"].as_str().unwrap_or_default();
            condition["type"] == "Ready"
                && condition["status"] == "False"
                && message.contains("container runtime is down")
        };
        if conditions.iter().any(is_down) { Ok(()) } else { Err(serde_json::to_string(&conditions)?.into()) }
    })?;
    let names_runtime = |cluster: &Cluster| match ask(cluster, "/readyz") {
        Ok(text) => Err(format!("/readyz passes without Docker: {text}").into()),
        Err(error) if error.to_string().contains("[-]runtime failed") => Ok(()),
        Err(error) => Err(format!("/readyz does not name the runtime: {error}").into()),
    };
    names_runtime(&cluster)?;
    // An agent that starts without Docker answers, too, while its pods wait.
    cluster.nodes[0].agent.take().ok_or("no agent")?.kill()?;
    cluster.restart_agent(0, &[])?;
    wait::until("an agent that waits for Docker to say so", PATIENCE, || names_runtime(&cluster))?;
    let node = &mut cluster.nodes[0];
    node.docker.restart(&node.host)?;
    cluster.wait_for_condition("node/node-1", "Ready")
}

/// The node is rebooted while the control service is away: its pods come up from what the agent last knew, and find the
/// Services served from their first moment.
pub fn pods_come_up_after_a_reboot_without_the_control_service() -> Result {
    let mut cluster = Cluster::start("flreboot", &ONE)?;
    // A backend that is there before every pod.
    let www = cluster.dir.path().join("outside-www");
    std::fs::create_dir(&www)?;
    std::fs::write(www.join("index.html"), "outside\n")?;
    let mut command = cluster.outside.command("busybox");
    command.args(["httpd", "-f", "-p", "8080", "-h"]).arg(&www);
    let _server = Process::start("outside-httpd", command, cluster.dir.path())?;
    let outside = Lab::address(1, 200);
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: outside}}\n\
         spec: {{clusterIP: 10.96.7.7, ports: [{{port: 80, targetPort: 8080}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: outside-1, labels: {{kubernetes.io/service-name: outside}}}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{{addresses: [{outside}], conditions: {{ready: true}}}}]\n"
    ))?;
    cluster.apply(&web("web", 2))?;
    cluster.wait_for_rollout("web")?;
    wait::until("the outside Service", PATIENCE, || cluster.nodes[0].host.sh(ASK_OUTSIDE).map(drop))?;
    // Connects once, as the first thing that it does.
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: first}}\n\
         spec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: first\n    image: \"{WEB}\"\n\
         \x20   command: [sh, -c, \"if {ASK_OUTSIDE}; then echo served; else echo refused; fi; exec sleep 1000000\"]\n"
    ))?;
    cluster.wait_for_condition("pod/first", "Ready")?;
    let address = cluster.get(&["service", "web"])?["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let kept = cluster.dir.path().join("node-1/agent/node/last-known");
    wait::until("the pods to be on disk", PATIENCE, || {
        let world = std::fs::read_to_string(kept.join("world.json"))?;
        let pods = std::fs::read_to_string(kept.join("pods.json"))?;
        let is_whole = world.contains(&address) && world.contains("10.96.7.7") && pods.matches("\"first\"").count() > 0;
        if is_whole { Ok(()) } else { Err(format!("{pods}\n{world}").into()) }
    })?;
    let running = |cluster: &Cluster| {
        cluster.nodes[0].docker.cli(&["ps", "-q", "--no-trunc", "--filter", "ancestor=fairlead.test/web:1"])
    };
    let before = running(&cluster)?;
    if before.split_whitespace().count() != 3 {
        return Err(format!("three containers expected: {before}").into());
    }

    cluster.control.take().ok_or("no control service")?.kill()?;
    cluster.nodes[0].agent.take().ok_or("no agent")?.kill()?;
    let node = &mut cluster.nodes[0];
    std::fs::remove_dir_all(std::path::Path::new("/sys/fs/bpf").join(&node.host.name))?;
    node.docker.restart(&node.host)?;
    cluster.restart_agent(0, &[])?;
    let log = |cluster: &Cluster| cluster.nodes[0].agent.as_ref().map(|agent| agent.tail()).unwrap_or_default();
    let fetch = format!("timeout 5 busybox wget -q -O - http://{address}/");
    let up = wait::until("the pods to be up", PATIENCE, || {
        let now = running(&cluster)?;
        let new = now.split_whitespace().filter(|id| !before.contains(id)).count();
        if new == 3 { Ok(()) } else { Err(format!("the containers are {now}").into()) }
    });
    up.map_err(|error| format!("{error}\n{}", log(&cluster)))?;
    let outcomes = wait::until("the first connection's outcome", PATIENCE, || {
        let docker = &cluster.nodes[0].docker;
        let logs: Result<Vec<String>> =
            running(&cluster)?.split_whitespace().map(|id| docker.cli(&["logs", id])).collect();
        let logs = logs?.concat();
        if logs.contains("served") || logs.contains("refused") { Ok(logs) } else { Err(logs.into()) }
    })?;
    if outcomes.contains("refused") {
        return Err(format!("a pod was started before its Services were served\n{}", log(&cluster)).into());
    }
    cluster.start_control()?;
    cluster.wait_for_condition("node/node-1", "Ready")?;
    // The pods have new addresses, which only the control service can make known.
    wait::until("the pods to be served", PATIENCE, || cluster.nodes[0].host.sh(&fetch).map(drop))?;
    cluster.apply(&web("web", 3))?;
    cluster.wait_for_rollout("web")
}

/// In a pod as on a host.
const ASK_OUTSIDE: &str = "timeout 5 busybox wget -q -O /dev/null http://10.96.7.7/";

/// The hooks and maps are gone as after a reboot, and the control service is away: names and Services come back from
/// what the agent last knew.
pub fn last_known_services_are_served_without_the_control_service() -> Result {
    let mut cluster = Cluster::start("flalone", &ONE)?;
    cluster.apply(&web("web", 2))?;
    cluster.wait_for_rollout("web")?;
    let service = cluster.get(&["service", "web"])?;
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let pods = cluster.get(&["pods", "-l", "app=web"])?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let addresses: Vec<&str> = pods.iter().filter_map(|pod| pod["status"]["podIP"].as_str()).collect();
    let kept = cluster.dir.path().join("node-1/agent/node/last-known/world.json");
    wait::until("both endpoints to be on disk", PATIENCE, || {
        let text = std::fs::read_to_string(&kept)?;
        let is_whole = addresses.len() == 2 && addresses.iter().all(|address| text.contains(address));
        if is_whole { Ok(()) } else { Err(format!("{addresses:?} are not all in {text}").into()) }
    })?;

    cluster.control.take().ok_or("no control service")?.kill()?;
    cluster.nodes[0].agent.take().ok_or("no agent")?.kill()?;
    std::fs::remove_dir_all(std::path::Path::new("/sys/fs/bpf").join(&cluster.nodes[0].host.name))?;
    let fetch = format!("timeout 5 busybox wget -q -O - http://{address}/");
    if cluster.nodes[0].host.sh(&fetch).is_ok() {
        return Err("the Service is served without hooks".into());
    }
    cluster.restart_agent(0, &[])?;
    let resolve = "timeout 5 busybox nslookup web.default.svc.cluster.local 10.96.0.10";
    let served = wait::until("the Service and its name to be served", PATIENCE, || {
        cluster.nodes[0].host.sh(&fetch)?;
        let answer = cluster.nodes[0].host.sh(resolve)?;
        if answer.contains(&address) { Ok(()) } else { Err(answer.into()) }
    });
    let log = |cluster: &Cluster| cluster.nodes[0].agent.as_ref().map(|agent| agent.tail()).unwrap_or_default();
    served.map_err(|error| format!("{error}\n{}", log(&cluster)))?;

    cluster.start_control()?;
    cluster.wait_for_condition("node/node-1", "Ready")?;
    cluster.apply(&web("web", 3))?;
    cluster.wait_for_rollout("web")
}
