//! Security fields, seen from inside a container, and commands that outlive their time.

use serde_json::json;

use super::*;

fn waiting(pod: &Value) -> (&str, &str) {
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    (waiting["reason"].as_str().unwrap_or_default(), waiting["message"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seccomp_profile_of_the_node_filters_or_fails_the_container() {
    let Some(mut node) = Node::start().await else { return };
    let directory = node.data.path().join("seccomp");
    std::fs::create_dir_all(&directory).unwrap();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }],
    });
    std::fs::write(directory.join("no-mkdir.json"), profile.to_string()).unwrap();
    std::fs::write(directory.join("empty.json"), "{}").unwrap();
    let with = |profile: &str| {
        let profile = json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": profile } });
        move |pod: &mut Value| pod["spec"]["containers"][0]["securityContext"] = profile
    };
    let command = "busybox mkdir /x && echo made || echo refused; exec sleep 1000";
    node.api.put_pod("filtered", command, with("no-mkdir.json"));
    node.api.put_pod("absent", command, with("none.json"));
    node.api.put_pod("empty", command, with("empty.json"));
    node.wait_ready("filtered").await;
    node.wait_logs("default/filtered/app", |log| log.contains("refused\n")).await;
    for (name, why) in [("absent", "No such file or directory"), ("empty", "defaultAction")] {
        let pod = node.wait(name, "refused", |pod| waiting(pod).0 == "CreateContainerError").await;
        assert!(waiting(&pod).1.contains(why), "{}", waiting(&pod).1);
    }
    node.stop_agent(Teardown::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_whose_security_cannot_be_had_gets_no_container() {
    let (mut node, runtime) = Node::in_memory().await;
    node.api.put_pod("users", "", |pod| pod["spec"]["hostUsers"] = false.into());
    assert!(node.wait_event("FailedCreatePodSandBox").await.contains("hostUsers"));
    node.api.put_pod("unmasked", "", |pod| {
        pod["spec"]["containers"][0]["securityContext"] = json!({ "procMount": "Unmasked" });
    });
    let pod = node.wait("unmasked", "refused", |pod| waiting(pod).0 == "CreateContainerError").await;
    assert!(waiting(&pod).1.contains("procMount"), "{}", waiting(&pod).1);
    assert_eq!(runtime.calls("create_container"), [] as [String; 0]);
    node.stop_agent(Teardown::Remove).await;
}

/// Whether a process runs on this host that has `argument` among its arguments.
fn runs(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
}

async fn wait_runs(argument: &str, wanted: bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while runs(argument) != wanted {
        assert!(Instant::now() < deadline, "{argument} runs: {}", !wanted);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_outlives_its_time_is_killed_with_what_it_started() {
    let Some(mut node) = Node::start().await else { return };
    // Numbers that no other process of this host has for an argument.
    let (probe, child) = ("1000017", "1000018");
    node.api.put_pod("probed", "exec sleep 1000", |pod| {
        let command = format!("sleep {child} & sleep {probe}; true");
        pod["spec"]["containers"][0]["startupProbe"] = json!({
            "exec": { "command": ["/bin/sh", "-c", command] },
            "periodSeconds": 3600, "timeoutSeconds": 1, "failureThreshold": 10,
        });
    });
    wait_runs(probe, true).await;
    wait_runs(child, true).await;
    assert!(node.wait_event("Unhealthy").await.contains("timed out"));
    wait_runs(probe, false).await;
    wait_runs(child, false).await;
    node.api.put_pod("hooked", "exec sleep 1000", |pod| {
        pod["spec"]["containers"][0]["lifecycle"] =
            json!({ "postStart": { "exec": { "command": ["/bin/sleep", "1000019"] } } });
        // What the hook starts would otherwise end with the container's own namespace.
        pod["spec"]["hostPID"] = true.into();
    });
    wait_runs("1000019", true).await;
    let began = Instant::now();
    node.api.delete_gracefully("hooked", 1);
    node.wait_gone("hooked").await;
    assert!(began.elapsed() < Duration::from_secs(30), "the hook held the deletion up");
    wait_runs("1000019", false).await;
    node.stop_agent(Teardown::Remove).await;
}
