//! `kubectl debug` in its three forms, and a pod whose resources change while it runs.

use std::io::{Read, Write};

use super::{
    expect,
    kubectl::{Kubectl, kubectls},
};
use crate::kit::{
    Result,
    cluster::{Cluster, PATIENCE},
    images, run, wait,
};

/// Runs kubectl with this input. Returns what it printed; fails where it does.
fn said(kubectl: &Kubectl<'_>, arguments: &[&str], input: &[u8]) -> Result<String> {
    let told = kubectl.output(arguments, input)?;
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    if !told.status.success() {
        return Err(format!("{} {arguments:?}: {}: {out}{err}", kubectl.name, told.status).into());
    }
    Ok(out.into_owned())
}

/// Starts kubectl with this input, which stays open: of a container whose input takes more than one client, the output
/// goes to a client only as long as that has not closed it. Returns what it prints until it ends.
fn told(kubectl: &Kubectl<'_>, arguments: &[&str], input: &str) -> Result<String> {
    let mut running = kubectl.spawn(arguments)?;
    running.0.stdin.as_mut().ok_or("no standard input")?.write_all(input.as_bytes())?;
    let (mut out, mut err) = (String::new(), String::new());
    running.0.stdout.take().ok_or("no standard output")?.read_to_string(&mut out)?;
    running.0.stderr.take().ok_or("no standard error")?.read_to_string(&mut err)?;
    match running.0.wait()?.success() {
        true => Ok(out),
        false => Err(format!("{} {arguments:?}: {out}{err}", kubectl.name).into()),
    }
}

/// One more container in a pod that runs, among the processes of one of its containers.
pub fn beside_a_container(cluster: &Cluster) -> Result {
    let image = format!("--image={}", images::WEB);
    for (number, kubectl) in kubectls(cluster)?.into_iter().enumerate() {
        let name = format!("debugger-{number}");
        let line = "read line; echo \"$line\"; ps";
        let arguments = ["debug", "plain", "-i", "-q", "-c", &name, "--target=c", &image, "--", "sh", "-c", line];
        let shown = told(&kubectl, &arguments, "hello\n")?;
        for wanted in ["hello\n", "sleep 1000000"] {
            if !shown.contains(wanted) {
                return Err(format!("{}: no {wanted:?} in {shown:?}", kubectl.name).into());
            }
        }
        wait::until(&format!("{name} to have ended"), PATIENCE, || {
            let pod = cluster.get(&["pod", "plain"])?;
            let statuses = pod["status"]["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default();
            let status = statuses.iter().find(|status| status["name"] == *name).cloned().unwrap_or_default();
            expect("its exit code", status["state"]["terminated"]["exitCode"].clone(), 0.into())
        })?;
    }
    let pod = cluster.get(&["pod", "plain"])?;
    expect("restarts", pod["status"]["containerStatuses"][0]["restartCount"].clone(), 0.into())
}

/// A copy of a pod with one more container, which sees the processes of the others.
pub fn in_a_copy(cluster: &Cluster) -> Result {
    let image = format!("--image={}", images::WEB);
    for (number, kubectl) in kubectls(cluster)?.into_iter().enumerate() {
        let (name, copy) = (format!("copy-{number}"), format!("--copy-to=copy-{number}"));
        let arguments =
            ["debug", "two", "-q", "-c", "debugger", &copy, "--share-processes", &image, "--", "sleep", "1000001"];
        said(&kubectl, &arguments, b"")?;
        cluster.wait_for_condition(&format!("pod/{name}"), "Ready")?;
        let seen = said(&kubectl, &["exec", &name, "-c", "debugger", "--", "ps"], b"")?;
        expect(&format!("{}: {seen}", kubectl.name), seen.matches("sleep 1000000").count(), 2)?;
        cluster.kubectl(&["delete", "pod", &name, "--grace-period=0", "--force"])?;
    }
    Ok(())
}

/// A pod on a node, in the namespaces of its host and with the host's files below `/host`.
pub fn on_a_node(cluster: &Cluster) -> Result {
    let image = format!("--image={}", images::WEB);
    let node = cluster.nodes.first().ok_or("no node")?;
    let marked = node.dir.join("seen-from-the-pod");
    std::fs::write(&marked, "the host's file\n")?;
    for kubectl in kubectls(cluster)? {
        let line = format!("read line; echo \"$line\"; cat '/host{}'; ip address", marked.display());
        let of_node = format!("node/{}", node.name);
        let shown = told(&kubectl, &["debug", &of_node, "-i", "-q", &image, "--", "sh", "-c", &line], "hello\n")?;
        for wanted in ["hello\n", "the host's file\n", &node.address.to_string()] {
            if !shown.contains(wanted) {
                return Err(format!("{}: no {wanted:?} in {shown:?}", kubectl.name).into());
            }
        }
    }
    std::fs::remove_file(&marked)?;
    let pods = cluster.kubectl(&["get", "pods", "-o", "name"])?;
    let left: Vec<&str> = pods.lines().filter(|name| name.starts_with("pod/node-debugger-")).collect();
    expect("pods that debugged the node", left.len(), kubectls(cluster)?.len())?;
    run(cluster.kubectl_command("kubectl").args(["delete", "--grace-period=0", "--force"]).args(left))?;
    Ok(())
}

/// What a container may use changes while it runs, without a restart.
pub fn resized(cluster: &Cluster) -> Result {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: grows}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: c\n    image: \"{}\"\n    command: [sleep, \"1000000\"]\n    \
         resources: {{requests: {{cpu: 100m, memory: 32Mi}}, limits: {{cpu: 100m, memory: 32Mi}}}}\n",
        images::WEB
    ))?;
    cluster.wait_for_condition("pod/grows", "Ready")?;
    // The second of each pair is of version 1.
    let read = "cd /sys/fs/cgroup; cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes; \
                cut -d ' ' -f 1 cpu.max 2>/dev/null || cat cpu/cpu.cfs_quota_us";
    let limits = || cluster.in_pod("grows", read);
    expect("limits at first", limits()?.trim(), "33554432\n10000")?;
    let to = "{\"spec\": {\"containers\": [{\"name\": \"c\", \"resources\": {\"requests\": {\"cpu\": \"200m\", \
              \"memory\": \"64Mi\"}, \"limits\": {\"cpu\": \"200m\", \"memory\": \"64Mi\"}}}]}}";
    // The oldest kubectl knows no such subresource.
    let newest = kubectls(cluster)?.into_iter().nth(1).ok_or("no newest kubectl")?;
    said(&newest, &["patch", "pod", "grows", "--subresource=resize", "-p", to], b"")?;
    wait::until("the new limits", PATIENCE, || expect("limits", limits()?.trim(), "67108864\n20000"))?;
    wait::until("the status to say so", PATIENCE, || {
        let status = cluster.get(&["pod", "grows"])?["status"]["containerStatuses"][0].clone();
        expect("memory", status["resources"]["limits"]["memory"].clone(), "64Mi".into())?;
        expect("restarts", status["restartCount"].clone(), 0.into())
    })
}
