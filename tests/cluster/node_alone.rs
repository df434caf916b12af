//! A node whose container runtime or control service is away. Each test has a cluster of its own.

use crate::{
    kit::{
        Result,
        cluster::{Cluster, NodePlacement, PATIENCE},
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
    let failing = match ask(&cluster, "/readyz") {
        Ok(text) => return Err(format!("/readyz passes without Docker: {text}").into()),
        Err(error) => error.to_string(),
    };
    if !failing.contains("runtime") {
        return Err(format!("/readyz does not name the runtime: {failing}").into());
    }
    let node = &mut cluster.nodes[0];
    node.docker.restart(&node.host)?;
    cluster.wait_for_condition("node/node-1", "Ready")
}

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
