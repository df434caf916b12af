//! What breaks: agents and control services are killed, Docker restarts. Each test has a cluster of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::{
    kit::{
        Result,
        cluster::{Cluster, NodePlacement, PATIENCE},
        run, wait,
    },
    three_nodes::web,
};

const TWO: [NodePlacement; 2] = [NodePlacement { link: 1, number: 11 }, NodePlacement { link: 1, number: 12 }];

/// Rounds of the kill test, as many as the promise names.
const KILLS: usize = 50;
const WRITERS: usize = 8;

/// The control service is killed under concurrent writes: every write it acknowledged is there afterwards.
pub fn control_killed_loses_no_acknowledged_write() -> Result {
    let mut cluster = Cluster::start("flkill", &[])?;
    let acknowledged = std::sync::Mutex::new(BTreeSet::new());
    for round in 0..KILLS {
        let stop = AtomicBool::new(false);
        let in_round = AtomicUsize::new(0);
        let mut control = cluster.control.take().ok_or("no control service")?;
        std::thread::scope(|scope| -> Result {
            for writer in 0..WRITERS {
                let (cluster, stop, in_round, acknowledged) = (&cluster, &stop, &in_round, &acknowledged);
                scope.spawn(move || {
                    for count in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let name = format!("kill-{round}-{writer}-{count}");
                        let document = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
                        if crate::kit::cluster::with_input(cluster.fairlead(&["create", "-f", "-"]), &document).is_ok()
                        {
                            acknowledged.lock().unwrap_or_else(|p| p.into_inner()).insert(name);
                            in_round.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let wrote = wait::until("writes", PATIENCE, || {
                let written = in_round.load(Ordering::Relaxed);
                if written > WRITERS + round % 7 { Ok(()) } else { Err(format!("{written} writes").into()) }
            });
            control.kill()?;
            stop.store(true, Ordering::Relaxed);
            wrote
        })?;
        cluster.start_control()?;
        let list = cluster.get(&["configmaps"])?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let stored: BTreeSet<&str> = items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect();
        let acknowledged = acknowledged.lock().unwrap_or_else(|p| p.into_inner());
        let lost: Vec<&String> = acknowledged.iter().filter(|name| !stored.contains(name.as_str())).collect();
        if !lost.is_empty() {
            return Err(format!("round {round}: acknowledged and lost: {lost:?}").into());
        }
    }
    Ok(())
}

/// The agent is killed under request load: no request fails, pods are not restarted, and it serves changes when it is
/// back.
///
/// `web` is scaled, so its pods come and go; every pod of `steady`, and the pod that sends the load, must be there at
/// the end with the container that it had at the start.
pub fn agent_killed_is_not_noticed() -> Result {
    let mut cluster = Cluster::start("flagent", &TWO)?;
    cluster.apply(&web("web", 4))?;
    cluster.apply(&web("steady", 4))?;
    cluster.wait_for_rollout("web")?;
    cluster.wait_for_rollout("steady")?;
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: load}\n\
         spec:\n  nodeName: node-1\n  terminationGracePeriodSeconds: 0\n\
         \x20 containers: [{name: load, image: \"fairlead.test/web:1\", command: [sleep, \"1000000\"]}]\n",
    )?;
    cluster.wait_for_condition("pod/load", "Ready")?;
    let unscaled = "app notin (web)";
    let before = containers(&cluster, unscaled)?;
    if before.len() != 5 || before.values().any(String::is_empty) {
        return Err(format!("five running pods expected: {before:?}").into());
    }
    let service = cluster.get(&["service", "web"])?;
    let url = format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap_or_default());
    let load = format!(
        "rm -f /tmp/*; while [ ! -e /tmp/stop ]; do if timeout 5 wget -q -O /dev/null {url}; \
         then echo >> /tmp/ok; else echo >> /tmp/failed; fi; done"
    );
    let pod = PodShell::new(&cluster, "load")?;
    let loading = pod.spawn(&load)?;
    wait::until("the load to run", PATIENCE, || pod.run("test -s /tmp/ok").map(|_| ()))?;
    for _ in 0..3 {
        let mut agent = cluster.nodes[0].agent.take().ok_or("no agent")?;
        agent.kill()?;
        let count = |pod: &PodShell| -> Result<usize> { Ok(pod.run("cat /tmp/ok | wc -l")?.trim().parse()?) };
        let at_kill = count(&pod)?;
        wait::until("200 requests without an agent", PATIENCE, || {
            let now = count(&pod)?;
            if now >= at_kill + 200 { Ok(()) } else { Err(format!("{} requests", now - at_kill).into()) }
        })?;
        cluster.restart_agent(0, &[])?;
        run(&mut cluster.fairlead(&["scale", "deployment/web", "--replicas=6"]))?;
        cluster.wait_for_rollout("web")?;
        run(&mut cluster.fairlead(&["scale", "deployment/web", "--replicas=4"]))?;
        cluster.wait_for_rollout("web")?;
    }
    pod.run("touch /tmp/stop")?;
    wait_for_end(loading)?;
    let failed = pod.run("cat /tmp/failed 2>/dev/null | wc -l")?;
    if failed.trim() != "0" {
        return Err(format!("{} requests failed", failed.trim()).into());
    }
    let after = containers(&cluster, unscaled)?;
    if before != after {
        return Err(format!("pods were restarted or replaced: {before:?} became {after:?}").into());
    }
    let pods = cluster.get(&["pods", "-l", "app=web"])?;
    let items = pods["items"].as_array().cloned().unwrap_or_default();
    match items.iter().find(|pod| pod["status"]["containerStatuses"][0]["restartCount"] != 0) {
        Some(pod) => Err(format!("{} was restarted: {}", pod["metadata"]["name"], pod["status"]).into()),
        None => Ok(()),
    }
}

/// Docker is restarted: the agent brings the pods back and the Service answers again.
pub fn docker_restarted_recovers() -> Result {
    let mut cluster = Cluster::start("fldocker", &[NodePlacement { link: 1, number: 11 }])?;
    cluster.apply(&web("web", 2))?;
    cluster.wait_for_rollout("web")?;
    let node = &mut cluster.nodes[0];
    node.docker.restart(&node.host)?;
    let service = cluster.get(&["service", "web"])?;
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    wait::until("both pods to answer again", PATIENCE, || {
        let pods = cluster.get(&["pods", "-l", "app=web"])?;
        let items = pods["items"].as_array().cloned().unwrap_or_default();
        let is_back = |pod: &serde_json::Value| {
            let status = &pod["status"]["containerStatuses"][0];
            status["ready"] == true && status["restartCount"].as_u64().is_some_and(|count| count > 0)
        };
        if items.len() != 2 || !items.iter().all(is_back) {
            return Err(serde_json::to_string(&items)?.into());
        }
        cluster.nodes[0].host.sh(&format!("timeout 5 busybox wget -q -O - http://{address}/")).map(|_| ())
    })
    .map_err(|error| format!("{error}\n{}", cluster.state()).into())
}

/// The container id of every pod that `selector` selects, by the pod's name.
fn containers(cluster: &Cluster, selector: &str) -> Result<BTreeMap<String, String>> {
    let pods = cluster.get(&["pods", "-l", selector])?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let items = pods["items"].as_array().cloned().unwrap_or_default();
    Ok(items
        .iter()
        .map(|pod| (text(&pod["metadata"]["name"]), text(&pod["status"]["containerStatuses"][0]["containerID"])))
        .collect())
}

/// A shell in a pod's container that needs neither the agent nor the control service.
struct PodShell {
    engine: String,
    container: String,
}

impl PodShell {
    fn new(cluster: &Cluster, pod: &str) -> Result<Self> {
        let object = cluster.get(&["pod", pod])?;
        let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
        let node = cluster.nodes.iter().find(|n| n.name == node).ok_or("the pod is on no node")?;
        let id = object["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
        Ok(Self { engine: node.docker.url(), container: id.trim_start_matches("docker://").to_owned() })
    }

    fn command(&self, line: &str) -> std::process::Command {
        let mut command = std::process::Command::new("docker");
        command.args(["--host", &self.engine, "exec", &self.container, "sh", "-c", line]);
        command
    }

    fn run(&self, line: &str) -> Result<String> {
        run(&mut self.command(line))
    }

    fn spawn(&self, line: &str) -> Result<std::process::Child> {
        Ok(self.command(line).spawn()?)
    }
}

fn wait_for_end(mut child: std::process::Child) -> Result {
    wait::until("the load to end", PATIENCE, || match child.try_wait()? {
        Some(_) => Ok(()),
        None => Err("it still runs".into()),
    })
}
