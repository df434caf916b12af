//! What changes in a pod that runs: its resources, and containers that are added to look into it.

use std::process::Stdio;

use serde_json::Value;

use crate::{
    kit::{
        Result,
        cluster::{Cluster, NodePlacement, PATIENCE},
        images, run, wait,
    },
    streams::kubectl::{Kubectl, kubectls},
    suite::NamedTest,
};

/// The cluster that the tests of this file share: one node.
pub fn start() -> Result<Cluster> {
    Cluster::start("flrun", &[NodePlacement { link: 1, number: 11 }])
}

/// Every test of this file by name.
pub const TESTS: &[NamedTest] = &[
    ("a_running_pod_is_resized_in_place", resize),
    ("a_debugger_joins_a_running_pod", debug),
    ("a_udp_socket_learns_its_address_towards_a_service_without_that_port", udp_source),
];

fn pod(cluster: &Cluster, name: &str, command: &str) -> Result {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n\
         \x20 - name: c\n    image: \"{}\"\n    command: [sh, -c, \"{command}\"]\n\
         \x20   resources: {{requests: {{cpu: 100m, memory: 32Mi}}, limits: {{cpu: 100m, memory: 32Mi}}}}\n",
        images::WEB
    );
    cluster.apply(&manifest)?;
    cluster.wait_for_condition(&format!("pod/{name}"), "Ready")
}

/// The newest kubectl: it knows the subresource, and all that `debug` can do.
fn newest(cluster: &Cluster) -> Result<Kubectl<'_>> {
    kubectls(cluster)?.pop().ok_or_else(|| "there is no kubectl".into())
}

fn resize(cluster: &Cluster) -> Result {
    pod(cluster, "resized", "exec sleep 1000000")?;
    let kubectl = newest(cluster)?;
    let patch = |cpu: &str, memory: &str| -> Result {
        let amounts = format!(r#"{{"cpu":"{cpu}","memory":"{memory}"}}"#);
        let resources = format!(r#"{{"requests":{amounts},"limits":{amounts}}}"#);
        let patch = format!(r#"{{"spec":{{"containers":[{{"name":"c","resources":{resources}}}]}}}}"#);
        let patched = kubectl.output(&["patch", "pod", "resized", "--subresource", "resize", "-p", &patch], b"")?;
        if patched.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&patched.stderr).into()) }
    };
    let told = |pod: &Value, kind: &str| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == kind)
    };
    let settled = |cpu: &str, memory: &str| {
        wait::until("the pod to be resized", PATIENCE, || {
            let pod = cluster.get(&["pod", "resized"])?;
            let container = &pod["status"]["containerStatuses"][0];
            let limits = &container["resources"]["limits"];
            let is_under_way = told(&pod, "PodResizeInProgress").or(told(&pod, "PodResizePending")).is_some();
            let is_done = limits["cpu"] == cpu && limits["memory"] == memory && !is_under_way;
            if is_done && container["restartCount"] == 0 { Ok(()) } else { Err(pod["status"].to_string().into()) }
        })
    };
    let limit = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
    let kernel_has = |bytes: u64| -> Result {
        let found = cluster.in_pod("resized", limit)?;
        if found.trim() == bytes.to_string() { Ok(()) } else { Err(format!("the kernel's limit is {found}").into()) }
    };
    kernel_has(32 << 20)?;
    patch("150m", "48Mi")?;
    settled("150m", "48Mi")?;
    kernel_has(48 << 20)?;
    patch("150m", "8Ki")?;
    wait::until("the limit below the usage to be refused", PATIENCE, || {
        let pod = cluster.get(&["pod", "resized"])?;
        let told = told(&pod, "PodResizeInProgress").unwrap_or_default();
        let refused = told["message"].as_str().is_some_and(|text| text.contains("below current usage"));
        if refused { Ok(()) } else { Err(pod["status"].to_string().into()) }
    })?;
    kernel_has(48 << 20)?;
    patch("100", "32Mi")?;
    wait::until("more than the node has to be infeasible", PATIENCE, || {
        let pod = cluster.get(&["pod", "resized"])?;
        let told = told(&pod, "PodResizePending").unwrap_or_default();
        if told["reason"] == "Infeasible" { Ok(()) } else { Err(pod["status"].to_string().into()) }
    })?;
    patch("50m", "32Mi")?;
    settled("50m", "32Mi")?;
    kernel_has(32 << 20)
}

fn debug(cluster: &Cluster) -> Result {
    pod(cluster, "debugged", "exec sleep 4321")?;
    let kubectl = newest(cluster)?;
    let target = ["debug", "-it", "debugged", "--image", images::WEB, "--target", "c", "--container", "look", "--"];
    let look = ["sh", "-c", "test -t 0 && read line && echo $line of $(cat /proc/1/cmdline)"];
    let words = kubectl.words(&[&target[..], &look].concat());
    let quoted = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let mut script = kubectl.command("sh");
    // Again and again: what is typed before kubectl is attached reaches nobody.
    let typing = "while echo sight; do sleep 1; done";
    script.args(["-c", &format!("({typing}) | script -qec \"{quoted}\" /dev/null")]);
    let told = run(script.stdin(Stdio::null()))?;
    if !told.contains("sight of sleep") || !told.contains("4321") {
        return Err(format!("the debugger said {told:?}").into());
    }
    wait::until("the debugger's end to be told", PATIENCE, || {
        let pod = cluster.get(&["pod", "debugged"])?;
        let status = &pod["status"]["ephemeralContainerStatuses"][0];
        let has_ended = status["name"] == "look" && status["state"]["terminated"]["exitCode"] == 0;
        if has_ended { Ok(()) } else { Err(pod["status"].to_string().into()) }
    })?;
    let log = cluster.kubectl(&["logs", "debugged", "-c", "look"])?;
    if !log.contains("sight of sleep") {
        return Err(format!("its log is {log:?}").into());
    }
    let pod = cluster.get(&["pod", "debugged"])?;
    let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
    if restarts == 0 { Ok(()) } else { Err(format!("the pod's own container was restarted {restarts} times").into()) }
}

/// Programs connect a UDP socket to learn their own address; nothing is sent by that.
fn udp_source(cluster: &Cluster) -> Result {
    pod(cluster, "udp", "exec sleep 1000000")?;
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: tcp-only}\nspec: {ports: [{port: 80, protocol: TCP}]}\n",
    )?;
    let service = cluster.get(&["service", "tcp-only"])?;
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let own = cluster.get(&["pod", "udp"])?["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    wait::until("the socket to connect", PATIENCE, || {
        // Busybox connects first and then waits for input, which does not come.
        let line = format!("(sleep 2 | nc -u {address} 80) & sleep 1; cat /proc/net/udp; wait");
        let sockets = cluster.in_pod("udp", &line)?;
        let octets = own.split('.').filter_map(|octet| octet.parse::<u8>().ok()).rev();
        let local: String = octets.map(|octet| format!("{octet:02X}")).collect();
        if sockets.contains(&format!("{local}:")) {
            Ok(())
        } else {
            Err(format!("no socket of {local}: {sockets}").into())
        }
    })
}
