//! Programs that people type: kubectl in every version that is installed, and Helm.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Client, Outcome, Server, command};
use crate::{
    command::{find, output, output_with_input},
    workspace,
};

/// All of them.
pub fn all() -> Vec<Client> {
    let versions = kubectls();
    let mut clients: Vec<Client> = versions
        .into_iter()
        .map(|(version, file)| Client {
            name: format!("kubectl {version}"),
            run: Box::new(move |server| kubectl(server, &file, &version)),
        })
        .collect();
    if clients.is_empty() {
        let skipped = |_: &Server| Ok(Outcome::Skipped("there is no kubectl".into()));
        clients.push(Client { name: "kubectl".into(), run: Box::new(skipped) });
    }
    clients.push(Client { name: "helm".into(), run: Box::new(helm) });
    clients
}

/// Each kubectl on the path or beside the one there, by version: `kubectl`, `kubectl.1.33`.
fn kubectls() -> BTreeMap<String, PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&on_path).flat_map(|dir| {
        let real = dir.join("kubectl").canonicalize().ok();
        let beside = real.and_then(|file| file.parent().map(Path::to_owned));
        [Some(dir), beside].into_iter().flatten()
    });
    let mut by_version = BTreeMap::new();
    for dir in found.collect::<std::collections::BTreeSet<_>>() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let is_kubectl = entry.file_name().to_str().is_some_and(|name| {
                name == "kubectl" || name.strip_prefix("kubectl.").is_some_and(|version| version.starts_with("1."))
            });
            if is_kubectl && let Some(version) = version_of(&entry.path()) {
                by_version.entry(version).or_insert_with(|| entry.path());
            }
        }
    }
    by_version
}

/// `1.33`
fn version_of(kubectl: &Path) -> Option<String> {
    let said = output(&mut command(kubectl, ["version", "--client", "--output=json"])).ok()?;
    let said: Value = serde_json::from_str(&said).ok()?;
    let version = &said["clientVersion"];
    let minor = version["minor"].as_str()?.trim_end_matches('+');
    Some(format!("{}.{minor}", version["major"].as_str()?))
}

fn kubectl(server: &Server, kubectl: &Path, version: &str) -> anyhow::Result<Outcome> {
    let namespace = format!("kubectl-{}", version.replace('.', "-"));
    let ask = |arguments: &[&str]| {
        let ask = command(kubectl, arguments.iter().copied());
        output(server.as_administrator(ask).args(["--namespace", &namespace]))
    };
    let send = |arguments: &[&str], text: &str| {
        let mut send = server.as_administrator(command(kubectl, arguments.iter().copied()));
        output_with_input(send.args(["--namespace", &namespace]), text)
    };
    ask(&["create", "namespace", &namespace])?;
    send(&["apply", "-f", "-"], MANIFEST)?;
    send(&["diff", "-f", "-"], MANIFEST).context("nothing is to differ from what was applied")?;
    let changed = MANIFEST.replace("greeting: hello", "greeting: bye");
    ensure!(send(&["diff", "-f", "-"], &changed).is_err(), "a difference is to be shown");
    send(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &changed)?;
    let shown = ask(&["get", "configmap", "web", "--output=jsonpath={.data.greeting}"])?;
    ensure!(shown == "bye", "applied server-side, it is {shown:?}");
    ask(&["scale", "deployment/web", "--replicas=0"])?;
    ask(&["set", "image", "deployment/web", "c=example.com/other"])?;
    ask(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    ask(&["rollout", "undo", "deployment/web"])?;
    ask(&["label", "configmap", "web", "a=b"])?;
    ask(&["patch", "configmap", "web", "--type=merge", "--patch={\"data\":{\"x\":\"y\"}}"])?;
    let table = ask(&["get", "deployment,configmap", "--selector=app=web", "--output=wide"])?;
    ensure!(table.contains("example.com/none") && table.contains("deployment.apps/web"), "a table: {table}");
    ensure!(ask(&["describe", "deployment", "web"])?.contains("RollingUpdate"), "a description");
    ensure!(ask(&["explain", "deployment.spec.strategy"])?.contains("rollingUpdate"), "an explanation");
    ensure!(ask(&["auth", "can-i", "create", "pods"])?.trim() == "yes", "an administrator may create pods");
    ensure!(ask(&["api-resources"])?.contains("deployments"), "the list of resources");
    ask(&["wait", "--for=jsonpath={.data.x}=y", "configmap/web", "--timeout=60s"])?;
    send(&["delete", "--wait", "-f", "-"], MANIFEST)?;
    ask(&["delete", "namespace", &namespace])?;
    Ok(Outcome::Passed)
}

const MANIFEST: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: web, labels: {app: web}}
data:
  greeting: hello
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: example.com/none}]}
";

fn helm(server: &Server) -> anyhow::Result<Outcome> {
    let built = std::env::var_os("FAIRLEAD_PEERS").map(|peers| PathBuf::from(peers).join("helm"));
    let Some(helm) = find("helm").or(built.filter(|helm| helm.exists())) else {
        return Ok(Outcome::Skipped("there is no helm on the path, nor in the directory FAIRLEAD_PEERS".into()));
    };
    let chart = workspace::root().join("tests/clients/chart");
    let ask = |arguments: &[&str]| {
        let ask = command(&helm, arguments.iter().copied());
        output(server.as_administrator(ask).args(["--namespace", "helm"]))
    };
    let chart = chart.to_str().context("the path of the chart is no text")?;
    let greeting = |wanted: &str| -> anyhow::Result<()> {
        let manifest = ask(&["get", "manifest", "web"])?;
        ensure!(manifest.contains(&format!("greeting: {wanted}")), "the release says {wanted}: {manifest}");
        Ok(())
    };
    ask(&["install", "web", chart, "--create-namespace", "--wait", "--timeout=60s"])?;
    greeting("hello")?;
    ask(&["upgrade", "web", chart, "--set", "greeting=bye", "--wait", "--timeout=60s"])?;
    greeting("bye")?;
    ask(&["rollback", "web", "1", "--wait", "--timeout=60s"])?;
    greeting("hello")?;
    ensure!(ask(&["history", "web"])?.contains("Rollback to 1"), "the history of the release");
    ask(&["uninstall", "web", "--wait", "--timeout=60s"])?;
    ensure!(!ask(&["list", "--short"])?.contains("web"), "the release is gone");
    Ok(Outcome::Passed)
}
