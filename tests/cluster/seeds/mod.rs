//! The examples that people learn Kubernetes with, as they stand in courses: they go through both CLIs and do what
//! their text says.

use std::{process::Command, time::Duration};

use crate::{
    kit::{
        Result,
        cluster::{Cluster, NodePlacement, PATIENCE},
        docker::Docker,
        process::Process,
        run, wait,
    },
    suite::NamedTest,
};

pub const TESTS: &[NamedTest] = &[
    ("the_replica_set_frontend_runs_three_pods", replica_set),
    ("a_service_with_a_selector_reaches_its_target_port", service_with_selector),
    ("a_service_without_selector_reaches_hand_made_endpoints", service_without_selector),
    ("the_node_port_service_can_be_described", node_port_service),
    ("the_old_deployment_is_converted_with_a_warning_and_rolls_out", old_deployment),
    ("the_pod_hello_node_runs_and_its_misprint_is_explained", hello_node),
    ("kubectl_basics_work", kubectl_basics),
    ("run_expose_and_delete_work", run_expose_delete),
    ("a_node_port_out_of_range_names_the_range_and_the_setting", node_port_out_of_range),
];

/// One node; the images of the examples are served by its engine and by a registry on its port 5000.
pub fn start() -> Result<Cluster> {
    let cluster = Cluster::start("flseed", &[NodePlacement { link: 1, number: 11 }])?;
    let node = &cluster.nodes[0];
    for image in [
        "gcr.io/google_samples/gb-frontend:v3",
        "hello-node:v1",
        "gcr.io/google_containers/echoserver:1.4",
        "localhost:5000/myimage:latest",
    ] {
        cluster.images.import(&node.docker, image)?;
    }
    for namespace in BOTH.map(Cli::namespace) {
        cluster.kubectl(&["create", "namespace", namespace])?;
    }
    Ok(cluster)
}

/// The two CLIs, each in a namespace of its own.
#[derive(Clone, Copy)]
enum Cli {
    Fairlead,
    Kubectl,
}

const BOTH: [Cli; 2] = [Cli::Fairlead, Cli::Kubectl];

impl Cli {
    fn namespace(self) -> &'static str {
        match self {
            Self::Fairlead => "by-fairlead",
            Self::Kubectl => "by-kubectl",
        }
    }

    fn command(self, cluster: &Cluster, line: &str) -> Command {
        let mut command = match self {
            Self::Fairlead => cluster.fairlead(&[]),
            Self::Kubectl => cluster.kubectl_command("kubectl"),
        };
        command.args(["-n", self.namespace()]).args(line.split_whitespace()).current_dir(SEEDS);
        command
    }

    /// Runs `line`; what it printed.
    fn run(self, cluster: &Cluster, line: &str) -> Result<String> {
        run(&mut self.command(cluster, line))
    }

    /// Runs `line`, which must fail; what it said.
    fn refused(self, cluster: &Cluster, line: &str) -> Result<String> {
        let output = self.command(cluster, line).output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Err(format!("{line} succeeded: {said}").into()) } else { Ok(said) }
    }
}

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/seeds");

fn contains(text: &str, wanted: &[&str]) -> Result {
    match wanted.iter().find(|part| !text.contains(*part)) {
        None => Ok(()),
        Some(missing) => Err(format!("{missing:?} is not in:\n{text}").into()),
    }
}

fn ready(cluster: &Cluster, cli: Cli, selector: &str, count: usize) -> Result {
    wait::until(&format!("{count} ready pods of {selector}"), PATIENCE, || {
        let list = cluster.get(&["pods", "-n", cli.namespace(), "-l", selector])?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let is_ready = |pod: &&serde_json::Value| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let found = items.iter().filter(is_ready).count();
        if found == count && items.len() == count {
            Ok(())
        } else {
            Err(format!("{found} of {} are ready", items.len()).into())
        }
    })
    .map_err(|error| format!("{error}\n{}", cluster.state()).into())
}

fn replica_set(cluster: &Cluster) -> Result {
    for cli in BOTH {
        contains(&cli.run(cluster, "apply -f replicaset.yaml")?, &["replicaset.apps/frontend created"])?;
        ready(cluster, cli, "tier=frontend", 3)?;
        contains(
            &cli.run(cluster, "get rs")?,
            &["NAME", "DESIRED", "CURRENT", "READY", "AGE", "frontend   3         3         3"],
        )?;
        contains(&cli.run(cluster, "describe rs frontend")?, &["frontend", "php-redis", "3 Running"])?;
        cli.run(cluster, "delete -f replicaset.yaml")?;
        ready(cluster, cli, "tier=frontend", 0)?;
    }
    Ok(())
}

/// Asks a Service from the node; the answer.
fn ask_service(cluster: &Cluster, cli: Cli, service: &str) -> Result<String> {
    let object = cluster.get(&["service", service, "-n", cli.namespace()])?;
    let address = object["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let port = object["spec"]["ports"][0]["port"].as_u64().unwrap_or_default();
    wait::until(&format!("{service} to answer"), PATIENCE, || {
        cluster.nodes[0].host.sh(&format!("timeout 5 busybox wget -q -O - http://{address}:{port}/"))
    })
}

fn service_with_selector(cluster: &Cluster) -> Result {
    for cli in BOTH {
        cli.run(cluster, "apply -f service-with-selector.yaml")?;
        cli.run(cluster, "run test-app --image=hello-node:v1 --labels=app=TestApp --env=PORT=9377")?;
        contains(&ask_service(cluster, cli, "my-service")?, &["test-app"])?;
        contains(&cli.run(cluster, "get endpoints my-service")?, &["my-service", ":9377"])?;
        cli.run(cluster, "delete service/my-service pod/test-app --grace-period=1")?;
    }
    Ok(())
}

fn service_without_selector(cluster: &Cluster) -> Result {
    let www = cluster.dir.path().join("legacy-www");
    std::fs::create_dir_all(&www)?;
    std::fs::write(www.join("index.html"), "legacy\n")?;
    cluster.outside.ip("addr replace 192.0.2.42/32 dev lo")?;
    cluster.lab_route("192.0.2.42/32 via 172.31.1.200")?;
    let mut httpd = cluster.outside.command("busybox");
    httpd.args(["httpd", "-f", "-p", "192.0.2.42:9377", "-h"]).arg(&www);
    let _legacy = Process::start("legacy", httpd, cluster.dir.path())?;
    for cli in BOTH {
        cli.run(cluster, "apply -f service-without-selector.yaml")?;
        cli.run(cluster, "apply -f endpoints.yaml")?;
        contains(&ask_service(cluster, cli, "my-service")?, &["legacy"])?;
        cli.run(cluster, "delete -f endpoints.yaml -f service-without-selector.yaml")?;
    }
    Ok(())
}

fn node_port_service(cluster: &Cluster) -> Result {
    for cli in BOTH {
        contains(&cli.run(cluster, "create -f svc.yml")?, &["service/myapp-service created"])?;
        cli.run(cluster, "run myapp --image=hello-node:v1 --labels=run=myapp-service --env=PORT=9000")?;
        contains(&ask_service(cluster, cli, "myapp-service")?, &["myapp"])?;
        contains(
            &cli.run(cluster, "describe svc myapp-service")?,
            &["Name:", "myapp-service", "NodePort", "Endpoints:", ":9000", "Session Affinity:", "None"],
        )?;
        contains(&cli.run(cluster, "get ep myapp-service")?, &["myapp-service", ":9000"])?;
        contains(&cli.run(cluster, "describe ep myapp-service")?, &["Subsets", "9000"])?;
        let object = cluster.get(&["service", "myapp-service", "-n", cli.namespace()])?;
        let port = object["spec"]["ports"][0]["nodePort"].as_u64().unwrap_or_default();
        let node = cluster.nodes[0].address;
        let from_outside = cluster.outside.sh(&format!("timeout 5 busybox wget -q -O - http://{node}:{port}/"))?;
        contains(&from_outside, &["myapp"])?;
        cli.run(cluster, "delete service/myapp-service pod/myapp --grace-period=1")?;
    }
    Ok(())
}

fn old_deployment(cluster: &Cluster) -> Result {
    let node = &cluster.nodes[0];
    let registry = registry(cluster)?;
    node.docker.cli(&["push", "localhost:5000/myimage:latest"])?;
    for cli in BOTH {
        let output = cli.command(cluster, "apply -f deployment.yml").output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        contains(&said, &["deployment.apps/myapp-service created", "apps/v1beta2 Deployment is deprecated"])?;
        contains(
            &cli.run(cluster, "rollout status deployment myapp-service --timeout=180s")?,
            &["successfully rolled out"],
        )?;
        ready(cluster, cli, "app=myapp-service", 10)?;
        contains(&cli.run(cluster, "get deploy myapp-service")?, &["UP-TO-DATE", "10/10"])?;
        contains(
            &cli.run(cluster, "describe deploy myapp-service")?,
            &["RollingUpdate", "1 max unavailable, 1 max surge", "MinReadySeconds:", "10"],
        )?;
        contains(&cli.run(cluster, "get rs")?, &["myapp-service-"])?;
        let stored = cluster.get(&["deployment", "myapp-service", "-n", cli.namespace()])?;
        if stored["apiVersion"] != "apps/v1" {
            return Err(format!("stored as {}", stored["apiVersion"]).into());
        }
        cli.run(cluster, "delete deployment myapp-service")?;
        ready(cluster, cli, "app=myapp-service", 0)?;
    }
    drop(registry);
    Ok(())
}

/// Debian's docker-registry on the node's loopback, port 5000.
fn registry(cluster: &Cluster) -> Result<Process> {
    let dir = cluster.dir.path().join("registry");
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("config.yml");
    std::fs::write(
        &config,
        format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:5000\"}}\n",
            dir.join("data").display()
        ),
    )?;
    let host = &cluster.nodes[0].host;
    let mut command = host.command("docker-registry");
    command.arg("serve").arg(&config);
    let registry = Process::start("registry", command, cluster.dir.path())?;
    wait::until("the registry", Duration::from_secs(20), || {
        host.sh("busybox wget -q -O - http://127.0.0.1:5000/v2/").map(|_| ())
    })?;
    Ok(registry)
}

fn hello_node(cluster: &Cluster) -> Result {
    for cli in BOTH {
        let said = cli.refused(cluster, "apply -f pod-as-printed.yaml")?;
        contains(&said, &["pod-as-printed.yaml", "line 2"])?;
        cli.run(cluster, "apply -f pod.yaml")?;
        ready(cluster, cli, "app=hello-node", 1)?;
        contains(&cli.run(cluster, "describe pods")?, &["hello-node:v1", "app=hello-node", "Running"])?;
        cli.run(cluster, "delete pod hello-node --grace-period=1")?;
    }
    Ok(())
}

fn kubectl_basics(cluster: &Cluster) -> Result {
    for cli in BOTH {
        contains(&cli.run(cluster, "get nodes --help")?, &["-o"])?;
        contains(&cli.run(cluster, "version")?, &["Client Version", "Server Version"])?;
        contains(&cli.run(cluster, "cluster-info")?, &["https://"])?;
        contains(&cli.run(cluster, "get nodes -o wide")?, &["INTERNAL-IP", "172.31.1.11", "docker://", "Ready"])?;
        contains(&cli.run(cluster, "get namespaces")?, &["kube-system", "Active"])?;
    }
    Ok(())
}

fn run_expose_delete(cluster: &Cluster) -> Result {
    for cli in BOTH {
        let create = "create deployment hello --image=gcr.io/google_containers/echoserver:1.4 --port=8080";
        contains(&cli.run(cluster, create)?, &["deployment.apps/hello created"])?;
        contains(
            &cli.run(cluster, "expose deployment hello --type=NodePort --port=8080")?,
            &["service/hello exposed"],
        )?;
        ready(cluster, cli, "app=hello", 1)?;
        contains(&ask_service(cluster, cli, "hello")?, &["hello-"])?;
        contains(&cli.run(cluster, "get service")?, &["NodePort", "8080:"])?;
        cli.run(cluster, "scale deployment hello --replicas=2")?;
        ready(cluster, cli, "app=hello", 2)?;
        cli.run(cluster, "delete deploy hello")?;
        cli.run(cluster, "delete svc hello")?;
        ready(cluster, cli, "app=hello", 0)?;
    }
    Ok(())
}

fn node_port_out_of_range(cluster: &Cluster) -> Result {
    for cli in BOTH {
        let said = cli.refused(cluster, "apply -f railsapp.yaml")?;
        contains(&said, &["36000", "30000-32767", "service-node-port-range"])?;
        contains(&cli.refused(cluster, "get service railsapp")?, &["not found"])?;
    }
    Ok(())
}

/// The same NodePort under a control service that was told a wider range.
pub fn node_port_with_a_wider_range() -> Result {
    let place = [NodePlacement { link: 1, number: 11 }];
    let cluster = Cluster::start_with("flwide", &place, &["--service-node-port-range", "30000-36767"], &[])?;
    cluster.kubectl(&["create", "namespace", Cli::Fairlead.namespace()])?;
    Cli::Fairlead.run(&cluster, "apply -f railsapp.yaml")?;
    let docker: &Docker = &cluster.nodes[0].docker;
    cluster.images.import(docker, "railsapp:v1")?;
    Cli::Fairlead.run(&cluster, "run railsapp --image=railsapp:v1 --labels=app=railsapp --env=PORT=80")?;
    let node = cluster.nodes[0].address;
    let answer = wait::until("the NodePort 36000 to answer", PATIENCE, || {
        cluster.outside.sh(&format!("timeout 5 busybox wget -q -O - http://{node}:36000/"))
    })?;
    contains(&answer, &["railsapp"])
}
