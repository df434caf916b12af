//! The CLI against a control service that runs alone: what it refuses to send, where it looks, and a watch that
//! outlives a restart.

use std::{path::Path, process::Command};

use crate::{
    control_alone::ControlAlone,
    kit::{
        Result,
        cluster::{FAIRLEAD, PATIENCE},
        process::Process,
        wait,
    },
    suite::TestAlone,
};

/// Names and bodies, for `main`.
pub const TESTS: &[TestAlone] = &[
    ("cli::an_empty_name_deletes_nothing", || with_control(empty_name)),
    ("cli::a_manifest_is_looked_for_in_its_own_namespace", || with_control(namespace_of_manifest)),
    ("cli::no_join_command_is_printed_that_leads_nowhere", || with_control(join_command_on_loopback)),
    ("cli::a_watch_goes_on_after_a_restart_of_the_control_service", watch_over_restart),
];

/// Runs `test` with a control service and a directory of its own.
fn with_control(test: fn(&ControlAlone, &Path) -> Result) -> Result {
    let dir = tempfile::Builder::new().prefix("flcli-").tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let control = runtime.block_on(ControlAlone::start(dir.path()))?;
    test(&control, dir.path())
}

/// The error of a command that must fail, which must say `what`.
fn refused(outcome: Result<String>, what: &str) -> Result {
    match outcome {
        Ok(output) => Err(format!("it succeeded: {output}").into()),
        Err(error) if error.to_string().contains(what) => Ok(()),
        Err(error) => Err(format!("it does not say '{what}': {error}").into()),
    }
}

fn empty_name(control: &ControlAlone, dir: &Path) -> Result {
    for name in ["a", "b"] {
        control.fairlead(&["create", "configmap", name, "--from-literal=key=value"])?;
    }
    let generated = dir.join("generated.yaml");
    std::fs::write(&generated, "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a-}\n")?;
    let said = "resource name may not be empty";
    refused(control.fairlead(&["delete", "configmap", ""]), said)?;
    refused(control.fairlead(&["delete", "configmap", "a", ""]), said)?;
    refused(control.fairlead(&["delete", "-f", &generated.display().to_string()]), said)?;
    for verb in ["get", "describe"] {
        refused(control.fairlead(&[verb, "configmap", ""]), said)?;
    }
    refused(control.fairlead(&["label", "configmap", "", "a=b"]), said)?;
    refused(control.fairlead(&["patch", "configmap", "", "-p", "{}"]), said)?;
    refused(control.fairlead(&["logs", ""]), said)?;
    refused(control.fairlead(&["inspect", "service", ""]), said)?;
    refused(control.fairlead(&["scale", "deployment", "", "--replicas=0"]), said)?;
    refused(control.fairlead(&["rollout", "restart", "deployment", ""]), said)?;
    refused(control.fairlead(&["wait", "--for=delete", "configmap", ""]), said)?;
    let left = control.fairlead(&["get", "configmaps", "a", "b", "-o", "name"])?;
    if left == "configmap/a\nconfigmap/b\n" { Ok(()) } else { Err(format!("left are: {left}").into()) }
}

fn namespace_of_manifest(control: &ControlAlone, dir: &Path) -> Result {
    control.fairlead(&["create", "namespace", "team-a"])?;
    let manifest = dir.join("settings.yaml").display().to_string();
    std::fs::write(&manifest, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: team-a}\n")?;
    control.fairlead(&["apply", "-f", &manifest])?;
    let found = control.fairlead(&["get", "-f", &manifest, "-o", "jsonpath={.metadata.namespace}"])?;
    if found != "team-a" {
        return Err(format!("found in '{found}'").into());
    }
    let described = control.fairlead(&["describe", "-f", &manifest])?;
    if !described.contains("team-a") {
        return Err(format!("described is {described}").into());
    }
    let said = "a resource cannot be retrieved by name across all namespaces";
    for verb in ["get", "describe", "delete"] {
        refused(control.fairlead(&[verb, "configmap", "settings", "-A"]), said)?;
    }
    control.fairlead(&["delete", "-f", &manifest]).map(|_| ())
}

fn join_command_on_loopback(control: &ControlAlone, _: &Path) -> Result {
    refused(control.fairlead(&["token", "create", "--print-join-command"]), "advertises no other address")?;
    let tokens = control.fairlead(&["token", "list"])?;
    if tokens.lines().count() == 1 { Ok(()) } else { Err(format!("a token was made all the same: {tokens}").into()) }
}

fn watch_over_restart() -> Result {
    let dir = tempfile::Builder::new().prefix("flcli-").tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let control = runtime.block_on(ControlAlone::start(dir.path()))?;
    control.fairlead(&["create", "configmap", "before", "--from-literal=key=value"])?;
    let mut command = Command::new(FAIRLEAD);
    command.env("KUBECONFIG", control.data_dir.join("admin.kubeconfig")).args(["get", "configmaps", "-w"]);
    let mut watch = Process::start("watch", command, dir.path())?;
    shown(&watch, "before")?;
    let control = runtime.block_on(control.restart())?;
    control.fairlead(&["create", "configmap", "after", "--from-literal=key=value"])?;
    shown(&watch, "after")?;
    if !watch.is_running() {
        return Err(format!("the watch has ended:\n{}", watch.tail()).into());
    }
    let rows = watch.tail().lines().filter(|line| line.starts_with("before ")).count();
    if rows == 1 { Ok(()) } else { Err(format!("what did not change was shown again:\n{}", watch.tail()).into()) }
}

/// Waits until the watch has printed a row for `name`.
fn shown(watch: &Process, name: &str) -> Result {
    wait::until(&format!("{name} to be shown"), PATIENCE, || {
        let output = watch.tail();
        if output.lines().any(|line| line.starts_with(&format!("{name} "))) { Ok(()) } else { Err(output.into()) }
    })
}
