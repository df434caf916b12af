//! Streams to pods as people use them: every kubectl of this machine, over WebSockets and over SPDY.

pub mod broken;
mod debug;
pub mod kubectl;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use self::kubectl::{Killed, all, every_version, kubectls};
use crate::{
    kit::{
        Result,
        cluster::{Cluster, NodePlacement, PATIENCE},
        images, run, wait,
    },
    suite::NamedTest,
};

/// The cluster that the tests of this file share: one node, and pods of every sort.
pub fn start() -> Result<Cluster> {
    let cluster = Cluster::start("flstr", &[NodePlacement { link: 1, number: 11 }])?;
    cluster.apply(&pods())?;
    cluster.apply(&broken::pods())?;
    for pod in ["plain", "reader", "web", "site", "counter", "talker", "quiet", "victim"] {
        cluster.wait_for_condition(&format!("pod/{pod}"), "Ready")?;
    }
    Ok(cluster)
}

/// Every test of this file by name.
pub const TESTS: &[NamedTest] = &[
    ("a_commands_outputs_and_exit_code_come_back", outputs_and_exit_code),
    ("ten_megabytes_go_in_and_come_back_the_same", ten_megabytes),
    ("a_terminal_is_one_and_has_the_clients_size", terminal),
    ("a_running_process_is_attached_to", attach),
    ("run_with_input_ends_with_its_command", run_with_input),
    ("ports_are_forwarded_to_many_connections", forward_ports),
    ("files_are_copied_both_ways", copy_files),
    ("a_site_is_visited_through_the_proxy", proxied_site),
    ("a_container_is_debugged_beside_itself", debug::beside_a_container),
    ("a_pod_is_debugged_in_a_copy", debug::in_a_copy),
    ("a_node_is_debugged_from_a_pod", debug::on_a_node),
    ("a_pod_is_resized_while_it_runs", debug::resized),
    ("what_cannot_be_run_is_said", refusals),
    ("nothing_is_left_of_clients_that_were_killed", nothing_left),
];

fn pods() -> String {
    let pod = |name: &str, container: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 0\n\
             \x20 containers:\n  - {{name: c, image: \"{}\", {container}}}\n---\n",
            images::WEB
        )
    };
    let waiting = "command: [sleep, \"1000000\"]";
    let two = format!("{waiting}}}\n  - {{name: d, image: \"{}\", {waiting}", images::WEB);
    [
        pod("plain", waiting),
        pod("two", &two),
        pod("reader", "stdin: true, command: [cat]"),
        // Listens on its own localhost alone, which nobody outside can reach.
        pod(
            "web",
            "command: [sh, -c, \"mkdir -p /www && dd if=/dev/urandom of=/www/big bs=1000 count=3000 2>/dev/null && \
             exec httpd -f -p 127.0.0.1:8080 -h /www\"]",
        ),
        pod(
            "site",
            "ports: [{containerPort: 8080}], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}, command: \
             [sh, -c, \"mkdir -p /www && echo '<a href=/b>b</a>' > /www/index.html && echo b > /www/b && \
             exec httpd -f -p 8080 -h /www\"]",
        ),
        "apiVersion: v1\nkind: Service\nmetadata: {name: site}\nspec:\n  selector: {app: site}\n  \
         ports: [{name: web, port: 80, targetPort: 8080}]\n---\n"
            .to_owned(),
    ]
    .concat()
}

/// Bytes that no encoding leaves as they are by chance.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?} instead of {wanted:?}").into()) }
}

/// The control service is no node here: it has no way to pods but through the node's agent.
fn proxied_site(cluster: &Cluster) -> Result {
    for of in ["pods/site", "pods/http:site:8080", "services/site:web", "services/site:80"] {
        let proxy = format!("/api/v1/namespaces/default/{of}/proxy");
        // A Service's endpoints follow its pods.
        wait::until(&format!("{proxy} to answer"), PATIENCE, || {
            let page = cluster.kubectl(&["get", "--raw", &format!("{proxy}/")])?;
            expect(of, page.trim(), &*format!("<a href=\"{proxy}/b\">b</a>"))
        })?;
        expect(of, cluster.kubectl(&["get", "--raw", &format!("{proxy}/b")])?.trim(), "b")?;
    }
    Ok(())
}

fn outputs_and_exit_code(cluster: &Cluster) -> Result {
    for kubectl in every_version(cluster)? {
        let told = kubectl.output(&["exec", "plain", "--", "sh", "-c", "echo out; echo err >&2; exit 42"], b"")?;
        expect(&kubectl.name, told.status.code(), Some(42))?;
        expect(&kubectl.name, String::from_utf8_lossy(&told.stdout).as_ref(), "out\n")?;
        expect(&kubectl.name, String::from_utf8_lossy(&told.stderr).lines().next(), Some("err"))?;
        let told = kubectl.output(&["exec", "plain", "--", "true"], b"")?;
        expect(&kubectl.name, told.status.code(), Some(0))?;
    }
    Ok(())
}

fn ten_megabytes(cluster: &Cluster) -> Result {
    let sent = noise(10_000_000);
    for kubectl in all(cluster)? {
        let told = kubectl.output(&["exec", "-i", "plain", "--", "cat"], &sent)?;
        if !told.status.success() || told.stdout != sent {
            let (length, err) = (told.stdout.len(), String::from_utf8_lossy(&told.stderr).into_owned());
            return Err(format!("{}: {length} bytes came back: {err}", kubectl.name).into());
        }
    }
    Ok(())
}

fn terminal(cluster: &Cluster) -> Result {
    for kubectl in all(cluster)? {
        let line = "stty rows 33 cols 77; \"$0\" \"$@\"";
        let command = kubectl.words(&["exec", "-it", "plain", "--", "sh", "-c", "test -t 1 && sleep 1 && stty size"]);
        let quoted = command.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        let mut script = kubectl.command("script");
        script.args(["-qec", &format!("sh -c '{line}' {quoted}"), "/dev/null"]);
        let told = run(script.stdin(Stdio::null()))?;
        if !told.contains("33 77") {
            return Err(format!("{}: {told:?}", kubectl.name).into());
        }
    }
    Ok(())
}

/// Reads lines of a child's output until one holds `wanted`.
fn line_with(child: &mut Child, wanted: &str) -> Result<String> {
    let output = child.stdout.as_mut().ok_or("no standard output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if line.contains(wanted) {
            return Ok(line);
        }
    }
    Err(format!("it ended before it said {wanted:?}").into())
}

fn attach(cluster: &Cluster) -> Result {
    for kubectl in all(cluster)? {
        let mut attached = kubectl.spawn(&["attach", "-i", "reader"])?;
        let line = format!("hello from {}\n", kubectl.name);
        attached.0.stdin.as_mut().ok_or("no standard input")?.write_all(line.as_bytes())?;
        line_with(&mut attached.0, line.trim())?;
    }
    let restarts = cluster.get(&["pod", "reader"])?["status"]["containerStatuses"][0]["restartCount"].clone();
    expect("restarts of the process that was attached to", restarts, 0.into())
}

fn run_with_input(cluster: &Cluster) -> Result {
    for (number, kubectl) in kubectls(cluster)?.into_iter().enumerate() {
        let (name, image) = (format!("once-{number}"), format!("--image={}", images::WEB));
        let told = kubectl.output(
            &[
                "run",
                "-i",
                "--rm",
                "--quiet",
                "--restart=Never",
                &image,
                &name,
                "--",
                "sh",
                "-c",
                "cat; sleep 1; exit 7",
            ],
            b"hello\n",
        )?;
        let said = String::from_utf8_lossy(&told.stdout).into_owned();
        expect(&kubectl.name, said.lines().next(), Some("hello"))
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&told.stderr)))?;
        expect(&kubectl.name, told.status.code(), Some(7))?;
    }
    Ok(())
}

fn forward_ports(cluster: &Cluster) -> Result {
    for kubectl in all(cluster)? {
        let mut forward = kubectl.spawn(&["port-forward", "pod/web", ":8080"])?;
        let line = line_with(&mut forward.0, "Forwarding from 127.0.0.1:")?;
        let port = line.split([':', ' ']).nth(3).ok_or("no port")?;
        let wanted = cluster.in_pod("web", "md5sum < /www/big")?;
        let fetch = format!(
            "for i in $(seq 20); do (curl -sf --max-time 60 http://127.0.0.1:{port}/big | md5sum) & done; wait"
        );
        let sums = cluster.control_host.sh(&fetch).map_err(|error| format!("{}: {error}", kubectl.name))?;
        expect(&kubectl.name, sums.lines().filter(|sum| *sum == wanted.trim()).count(), 20)?;
    }
    Ok(())
}

fn copy_files(cluster: &Cluster) -> Result {
    let dir = tempfile::tempdir()?;
    let sent = dir.path().join("sent");
    std::fs::create_dir_all(sent.join("below"))?;
    std::fs::write(sent.join("below/noise"), noise(3_000_000))?;
    std::fs::write(sent.join("empty"), "")?;
    for (number, kubectl) in all(cluster)?.into_iter().enumerate() {
        let (there, back) = (format!("plain:/tmp/{number}"), dir.path().join(number.to_string()));
        let path = |path: &Path| path.display().to_string();
        let copied = kubectl.output(&["cp", &path(&sent), &there], b"")?;
        let returned = kubectl.output(&["cp", &there, &path(&back)], b"")?;
        for told in [copied, returned] {
            let said = String::from_utf8_lossy(&told.stderr).into_owned();
            expect(&format!("{}: {said}", kubectl.name), told.status.code(), Some(0))?;
        }
        expect(&kubectl.name, std::fs::read(back.join("below/noise"))? == noise(3_000_000), true)?;
        expect(&kubectl.name, std::fs::read(back.join("empty"))?.len(), 0)?;
    }
    Ok(())
}

fn refusals(cluster: &Cluster) -> Result {
    for kubectl in all(cluster)? {
        for (arguments, wanted) in [
            (&["exec", "plain", "-c", "no", "--", "true"][..], "container no is not valid for pod plain"),
            (&["exec", "missing", "--", "true"], "pods \"missing\" not found"),
            (&["exec", "plain", "--", "no-such-program"], "executable file not found"),
            (&["attach", "two", "-c", "x"], "container x not found in pod two"),
            (&["port-forward", "missing", ":80"], "pods \"missing\" not found"),
        ] {
            let told = kubectl.output(arguments, b"")?;
            let said = [told.stdout, told.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            if told.status.success() || !said.contains(wanted) {
                return Err(format!("{} {arguments:?}: {}: {said}", kubectl.name, told.status).into());
            }
        }
    }
    let raw = cluster.kubectl(&["get", "--raw", "/api/v1/namespaces/default/pods/two/exec?command=ls&stdout=1"]);
    let said = raw.err().map(|error| error.to_string()).unwrap_or_default();
    expect("without a container", said.contains("choose one of: [c d]"), true)
}

/// Open files of the control service and the agent, sockets included.
fn held(cluster: &Cluster) -> Result<Vec<(String, usize)>> {
    let processes = cluster.nodes.iter().filter_map(|node| node.agent.as_ref()).chain(&cluster.control);
    let count = |path: String| -> Result<usize> { Ok(std::fs::read_dir(path)?.count()) };
    processes.map(|process| Ok((process.name.clone(), count(format!("/proc/{}/fd", process.pid()))?))).collect()
}

fn nothing_left(cluster: &Cluster) -> Result {
    let commands = || cluster.in_pod("plain", "ps | grep -c '[4]2424' || true");
    for kubectl in all(cluster)? {
        let before = held(cluster)?;
        let mut children: Vec<Killed> = Vec::new();
        for number in 0..3 {
            let line = format!("{number} of {}\n", kubectl.name);
            for (arguments, input, begun) in [
                (&["exec", "-i", "plain", "--", "sh", "-c", "echo begun; sleep 42424 & sleep 42424"][..], "", "begun"),
                (&["exec", "plain", "--", "sh", "-c", "echo begun; cat /dev/zero; sleep 42424"], "", "begun"),
                (&["attach", "-i", "reader"], line.as_str(), line.trim()),
                (&["port-forward", "pod/web", ":8080"], "", "Forwarding from 127.0.0.1:"),
            ] {
                let mut child = kubectl.spawn(arguments)?;
                child.0.stdin.as_mut().ok_or("no standard input")?.write_all(input.as_bytes())?;
                line_with(&mut child.0, begun)?;
                children.push(child);
            }
        }
        wait::until("the commands to run", PATIENCE, || {
            let running: usize = commands()?.trim().parse()?;
            if running >= 9 { Ok(()) } else { Err(format!("{running} run").into()) }
        })?;
        drop(children);
        wait::until("the commands to end", PATIENCE, || expect(&kubectl.name, commands()?.trim(), "0"))?;
        wait::until("connections to end", Duration::from_secs(60), || {
            let now = held(cluster)?;
            let more: Vec<_> = now.iter().zip(&before).filter(|((_, now), (_, before))| now > before).collect();
            if more.is_empty() { Ok(()) } else { Err(format!("{}: {more:?}", kubectl.name).into()) }
        })?;
    }
    Ok(())
}
