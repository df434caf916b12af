//! What pods have while they run: resources that change, debuggers that are added, privileges.

use serde_json::Value;

use crate::{
    kit::{
        Result,
        cluster::{Cluster, NodePlacement, PATIENCE},
        images, wait,
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
    ("a_privileged_pod_runs_and_has_what_the_machine_can_give", privileged),
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

/// The newest kubectl: it knows the subresource.
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

/// `kubectl debug` adds the container, waits for it, and attaches to it.
fn privileged(cluster: &Cluster) -> Result {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: privileged}}\nspec:\n  terminationGracePeriodSeconds: 0\n\
         \x20 containers:\n  - {{name: c, image: \"{}\", command: [sleep, \"1000000\"],\n\
         \x20    securityContext: {{privileged: true}}}}\n",
        images::WEB
    ))?;
    cluster.wait_for_condition("pod/privileged", "Ready")?;
    let bounding = |status: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).ok_or("no CapBnd")?;
        Ok(u64::from_str_radix(line.trim(), 16)?)
    };
    let inside = bounding(&cluster.in_pod("privileged", "cat /proc/1/status")?)?;
    let here = bounding(&std::fs::read_to_string("/proc/self/status")?)?;
    // Older engines do not know the newest capabilities.
    const KNOWN: u64 = (1 << 38) - 1;
    if inside & KNOWN == here & KNOWN { Ok(()) } else { Err(format!("{inside:x} is not {here:x}").into()) }
}
