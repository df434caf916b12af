//! Streams that do not end as they should: half closed, not taken, larger than any memory, and cut on either side. What
//! they held is given back: files, sockets, threads, and the commands that were started for them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
    time::Duration,
};

use super::{
    expect,
    kubectl::{Killed, Kubectl, all},
    line_with,
};
use crate::{
    kit::{
        Result,
        cluster::{Cluster, NodePlacement, PATIENCE},
        images,
        process::Process,
        wait,
    },
    suite::NamedTest,
};

/// What streams may add to the memory of the control service or the agent while they are not taken, or while hundreds
/// of megabytes pass.
const MOST_MIB: u64 = 96;
const HUGE: u64 = 300_000_000;
const QUIET_FOLLOWERS: usize = 3;

/// Those that leave the cluster as it is.
pub const TESTS: &[NamedTest] = &[
    ("an_output_comes_after_the_input_has_ended", half_closed),
    ("a_forwarded_connection_is_answered_after_its_client_has_said_all", half_closed_forward),
    ("what_is_not_taken_and_what_is_huge_holds_little_memory", slow_and_huge),
    ("nothing_is_left_of_followers_of_logs_that_were_killed", killed_followers),
    ("streams_to_a_container_that_is_killed_end", killed_container),
];

/// What the control service and the agent hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    name: String,
    files: usize,
    resident_mib: u64,
}

fn held(cluster: &Cluster) -> Result<Vec<Held>> {
    cluster.nodes.iter().filter_map(|node| node.agent.as_ref()).chain(&cluster.control).map(held_by).collect()
}

fn held_by(process: &Process) -> Result<Held> {
    let proc = format!("/proc/{}", process.pid());
    let status = std::fs::read_to_string(format!("{proc}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(Held {
        name: process.name.clone(),
        files: std::fs::read_dir(format!("{proc}/fd"))?.count(),
        resident_mib: resident.trim().trim_end_matches(" kB").parse::<u64>()? / 1024,
    })
}

/// How many files the agents have open.
fn agent_files(cluster: &Cluster) -> Result<usize> {
    Ok(held(cluster)?.iter().filter(|held| held.name != "control").map(|held| held.files).sum())
}

/// Waits until as many files are open as before, or fewer.
fn given_back(cluster: &Cluster, what: &str, before: &[Held]) -> Result {
    wait::until("connections to end", PATIENCE, || {
        let now = held(cluster)?;
        let more = now.iter().zip(before).find(|(now, before)| now.files > before.files);
        more.map_or(Ok(()), |(now, before)| Err(format!("{what}: {now:?}, before {before:?}").into()))
    })
}

fn holds_little(cluster: &Cluster, what: &str, before: &[Held]) -> Result {
    for (now, before) in held(cluster)?.iter().zip(before) {
        if now.resident_mib > before.resident_mib + MOST_MIB {
            return Err(format!("{what}: {now:?}, before {before:?}").into());
        }
    }
    Ok(())
}

/// Clients whose protocol can say that the input has ended, which the first ones over WebSockets could not.
fn half_closed(cluster: &Cluster) -> Result {
    for kubectl in all(cluster)? {
        let line = "cat | wc -c; echo after the end";
        let told = kubectl.output(&["exec", "-i", "plain", "--", "sh", "-c", line], &[b'x'; 100_000])?;
        expect(&kubectl.name, String::from_utf8_lossy(&told.stdout).as_ref(), "100000\nafter the end\n")?;
    }
    Ok(())
}

/// Starts to forward a port of a pod; answers with the local one.
fn forward(kubectl: &Kubectl<'_>, pod: &str, port: u16) -> Result<(Killed, u16)> {
    let mut forward = kubectl.spawn(&["port-forward", &format!("pod/{pod}"), &format!(":{port}")])?;
    let line = line_with(&mut forward.0, "Forwarding from 127.0.0.1:")?;
    Ok((forward, line.split([':', ' ']).nth(3).ok_or("no port")?.parse()?))
}

fn half_closed_forward(cluster: &Cluster) -> Result {
    for kubectl in all(cluster)? {
        let (_forward, port) = forward(&kubectl, "counter", 7000)?;
        // busybox' nc says that it has said all, and reads on.
        let line = format!("head -c 100000 /dev/zero | timeout 60 busybox nc 127.0.0.1 {port}");
        let said = cluster.control_host.sh(&line).map_err(|error| format!("{}: {error}", kubectl.name))?;
        expect(&kubectl.name, said.trim(), "100000")?;
    }
    Ok(())
}

/// A client of each sort does not read, while as many bytes as would fill the memory go through another one.
fn slow_and_huge(cluster: &Cluster) -> Result {
    for kubectl in all(cluster)? {
        let before = held(cluster)?;
        let mut slow: Vec<Killed> = Vec::new();
        for _ in 0..3 {
            let mut exec = kubectl.spawn(&["exec", "plain", "--", "sh", "-c", "echo begun; exec cat /dev/zero"])?;
            line_with(&mut exec.0, "begun")?;
            let mut logs = kubectl.spawn(&["logs", "-f", "talker"])?;
            line_with(&mut logs.0, "line")?;
            slow.extend([exec, logs]);
        }
        let (forward, port) = forward(&kubectl, "web", 8080)?;
        let mut fetches = Vec::new();
        let files: Vec<_> = (0..3).map(|number| cluster.dir.path().join(format!("slow-{number}"))).collect();
        for file in &files {
            std::fs::write(file, "")?;
            // Takes a byte a second of three megabytes.
            let mut fetch = cluster.control_host.command("curl");
            fetch.args(["-s", "--limit-rate", "1", "-o"]).arg(file).arg(format!("http://127.0.0.1:{port}/big"));
            fetches.push(Killed(fetch.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?));
        }
        wait::until("the slow fetches", PATIENCE, || {
            let begun = files.iter().filter(|file| file.metadata().is_ok_and(|file| file.len() > 0)).count();
            expect(&kubectl.name, begun, files.len())
        })?;
        let mut huge = kubectl.spawn(&["exec", "plain", "--", "head", "-c", &HUGE.to_string(), "/dev/zero"])?;
        let mut output = huge.0.stdout.take().ok_or("no standard output")?;
        let (mut piece, mut bytes, mut looked) = (vec![0; 1 << 20], 0, 0);
        loop {
            let read = output.read(&mut piece)?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            // Now and then, while it passes.
            if bytes - looked > HUGE / 16 {
                holds_little(cluster, &kubectl.name, &before)?;
                looked = bytes;
            }
        }
        expect(&kubectl.name, bytes, HUGE)?;
        holds_little(cluster, &kubectl.name, &before)?;
        drop((slow, fetches, forward, huge));
        given_back(cluster, &kubectl.name, &before)?;
        wait::until("the commands to end", PATIENCE, || {
            expect(&kubectl.name, cluster.in_pod("plain", "ps | grep -c '[/]dev/zero' || true")?.trim(), "0")
        })?;
    }
    Ok(())
}

fn killed_followers(cluster: &Cluster) -> Result {
    for kubectl in all(cluster)? {
        let before = held(cluster)?;
        let mut followers = Vec::new();
        for arguments in [&["logs", "-f", "talker"][..], &["logs", "-f", "--tail=1", "talker"]] {
            for _ in 0..3 {
                followers.push(kubectl.spawn(arguments)?);
            }
        }
        // They follow: those of a pod that talks have read something, and the control service has a connection to the
        // agent for each of the others.
        for follower in &mut followers {
            line_with(&mut follower.0, "line")?;
        }
        let talking = agent_files(cluster)?;
        for _ in 0..QUIET_FOLLOWERS {
            followers.push(kubectl.spawn(&["logs", "-f", "quiet"])?);
        }
        wait::until("followers of a quiet pod", PATIENCE, || match agent_files(cluster)? {
            files if files >= talking + QUIET_FOLLOWERS => Ok(()),
            files => Err(format!("{}: {files} files, {talking} before", kubectl.name).into()),
        })?;
        drop(followers);
        given_back(cluster, &kubectl.name, &before)?;
    }
    Ok(())
}

/// The process of a container is killed by its node: every stream to it ends, and its clients with it.
fn killed_container(cluster: &Cluster) -> Result {
    for kubectl in all(cluster)? {
        let before = held(cluster)?;
        let mut clients = vec![
            ("exec", kubectl.spawn(&["exec", "-i", "victim", "--", "sh", "-c", "echo begun; sleep 42425"])?),
            ("attach", kubectl.spawn(&["attach", "-i", "victim"])?),
            ("logs", kubectl.spawn(&["logs", "-f", "victim"])?),
        ];
        for (_, client) in &mut clients[..1] {
            line_with(&mut client.0, "begun")?;
        }
        clients[1].1.0.stdin.as_mut().ok_or("no standard input")?.write_all(b"hello\n")?;
        for (_, client) in &mut clients[1..] {
            line_with(&mut client.0, "hello")?;
        }
        let (forward, port) = forward(&kubectl, "victim", 7000)?;
        let mut connected = cluster.control_host.command("busybox");
        connected.args(["nc", "127.0.0.1", &port.to_string()]);
        let mut connected = Killed(connected.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?);
        let pod = cluster.get(&["pod", "victim"])?;
        let status = &pod["status"]["containerStatuses"][0];
        let id = status["containerID"].as_str().unwrap_or_default().trim_start_matches("docker://").to_owned();
        let restarts = status["restartCount"].as_u64().unwrap_or_default();
        cluster.nodes[0].docker.cli(&["kill", &id])?;
        for (what, client) in &mut clients {
            ends(&format!("{what} by {}", kubectl.name), &mut client.0)?;
        }
        ends(&format!("a connection by {}", kubectl.name), &mut connected.0)?;
        drop((clients, connected, forward));
        wait::until("the container to be back", PATIENCE, || {
            let pod = cluster.get(&["pod", "victim"])?;
            let status = &pod["status"]["containerStatuses"][0];
            let is_back = status["ready"] == true && status["restartCount"].as_u64() > Some(restarts);
            if is_back { Ok(()) } else { Err(status.to_string().into()) }
        })?;
        given_back(cluster, &kubectl.name, &before)?;
    }
    Ok(())
}

fn ends(what: &str, child: &mut std::process::Child) -> Result {
    wait::until(&format!("the end of {what}"), PATIENCE, || match child.try_wait()? {
        Some(_) => Ok(()),
        None => Err("it goes on".into()),
    })
}

/// The agent is killed under streams of every sort: their clients end, the control service gives back what it held, and
/// the next agent serves.
pub fn agent_killed_under_streams() -> Result {
    let mut cluster = Cluster::start("flstrk", &[NodePlacement { link: 1, number: 11 }])?;
    cluster.apply(&super::pods())?;
    cluster.apply(&pods())?;
    for pod in ["plain", "reader", "counter", "talker", "victim"] {
        cluster.wait_for_condition(&format!("pod/{pod}"), "Ready")?;
    }
    for round in 0..2 {
        // The agent is gone for a while.
        let control = |cluster: &Cluster| held_by(cluster.control.as_ref().ok_or("no control service")?);
        let before = control(&cluster)?;
        {
            let mut clients: Vec<(String, Killed)> = Vec::new();
            let mut forwards = Vec::new();
            for kubectl in all(&cluster)? {
                let mut exec =
                    kubectl.spawn(&["exec", "-i", "plain", "--", "sh", "-c", "echo begun; cat /dev/zero"])?;
                line_with(&mut exec.0, "begun")?;
                let mut attach = kubectl.spawn(&["attach", "-i", "reader"])?;
                attach.0.stdin.as_mut().ok_or("no standard input")?.write_all(b"hello\n")?;
                line_with(&mut attach.0, "hello")?;
                let mut logs = kubectl.spawn(&["logs", "-f", "talker"])?;
                line_with(&mut logs.0, "line")?;
                for (what, client) in [("exec", exec), ("attach", attach), ("logs", logs)] {
                    clients.push((format!("{what} by {}", kubectl.name), client));
                }
                let (forward, port) = forward(&kubectl, "counter", 7000)?;
                let mut connected = cluster.control_host.command("busybox");
                connected.args(["nc", "127.0.0.1", &port.to_string()]);
                let connected = connected.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
                clients.push((format!("a connection by {}", kubectl.name), Killed(connected)));
                forwards.push(forward);
            }
            cluster.nodes[0].agent.as_mut().ok_or("no agent")?.kill()?;
            for (what, client) in &mut clients {
                // Whatever comes still is read: a client that nobody reads from does not see the end.
                if let Some(output) = client.0.stdout.take() {
                    std::thread::spawn(move || {
                        for line in BufReader::new(output).split(b'\n') {
                            if line.is_err() {
                                return;
                            }
                        }
                    });
                }
                ends(what, &mut client.0)?;
            }
        }
        wait::until("connections to end", PATIENCE, || {
            let now = control(&cluster)?;
            if now.files > before.files { Err(format!("{now:?}, before {before:?}").into()) } else { Ok(()) }
        })?;
        cluster.restart_agent(0, &[])?;
        wait::until(&format!("exec after kill {round}"), Duration::from_secs(120), || {
            expect("exec", cluster.kubectl(&["exec", "plain", "--", "echo", "again"])?.trim(), "again")
        })?;
        // Docker reads on what a command writes after who started it has gone, and has no call that ends one: those of
        // an agent that was killed run on until their container ends, as the next agent cannot tell them from a
        // person's. Here they end, and nothing starts them again.
        cluster.in_pod("plain", "kill $(ps | grep '[/]dev/zero' | cut -c1-5) || true")?;
        wait::until("the commands to end", PATIENCE, || {
            expect("plain", cluster.in_pod("plain", "ps | grep -c '[/]dev/zero' || true")?.trim(), "0")
        })?;
    }
    Ok(())
}

/// Pods that the tests of this file need beside the others.
pub fn pods() -> String {
    let pod = |name: &str, container: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n\
             \x20 containers:\n  - {{name: c, image: \"{}\", {container}}}\n---\n",
            images::WEB
        )
    };
    [
        // Answers each connection with how many bytes it got, once there are no more.
        pod("counter", "command: [nc, -ll, -p, \"7000\", -e, wc, -c]"),
        pod("talker", "command: [sh, -c, \"while :; do echo line $((n += 1)); sleep 0.01; done\"]"),
        pod("quiet", "command: [sleep, \"1000000\"]"),
        pod("victim", "stdin: true, command: [sh, -c, \"nc -ll -p 7000 -e cat & exec cat\"]"),
    ]
    .concat()
}
