//! Runs the suite on the control host and reads what ginkgo reports.

use std::{path::Path, process::Stdio};

use serde_json::Value;

use crate::{
    Arguments,
    kit::{Result, cluster::Cluster},
    programs::Peers,
    report::{Outcome, Spec},
};

/// The specs that were selected, with what became of each.
pub fn run(cluster: &Cluster, peers: &Peers, arguments: &Arguments, out: &Path) -> Result<Vec<Spec>> {
    let report = out.join("report.json");
    if report.exists() {
        std::fs::remove_file(&report)?;
    }
    let log = std::fs::File::create(out.join("log.txt"))?;
    let mut command = cluster.control_host.command(peers.program("ginkgo"));
    command.env("KUBECONFIG", cluster.kubeconfig()).env("HOME", out);
    command.args(["run", "--no-color", "--silence-skips", "--json-report", "report.json"]);
    command.args([&format!("--procs={}", arguments.procs), &format!("--timeout={}", arguments.timeout)]);
    command.args([&format!("--focus={}", arguments.focus)]).arg(format!("--output-dir={}", out.display()));
    command.args(arguments.skip.iter().map(|skip| format!("--skip={skip}")));
    command.args(arguments.labels.iter().map(|labels| format!("--label-filter={labels}")));
    command.arg(peers.program("e2e.test")).arg("--");
    command.arg("--kubeconfig").arg(cluster.kubeconfig()).args(["--provider", "skeleton", "--kubectl-path"]);
    command.arg(peers.program("kubectl"));
    command.args(["--allowed-not-ready-nodes", "10", "--minStartupPods", "0", "--system-pods-startup-timeout", "10s"]);
    command.args(["--node-schedulable-timeout", "30s", "--dump-logs-on-failure=false", "--disable-log-dump"]);
    println!("running the suite; its output goes to {}", out.join("log.txt").display());
    // Its exit status says no more than the report does.
    let status = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).status()?;
    let text = std::fs::read(&report)
        .map_err(|error| format!("the suite ended ({status}) without a report: {error}; see log.txt"))?;
    Ok(specs(&serde_json::from_slice(&text)?))
}

/// The specs of a report, without those that were not selected.
pub fn specs(report: &Value) -> Vec<Spec> {
    let suites = report.as_array().into_iter().flatten();
    let specs = suites.flat_map(|suite| suite["SpecReports"].as_array().into_iter().flatten());
    specs.filter_map(spec).collect()
}

fn spec(value: &Value) -> Option<Spec> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let outcome = match value["State"].as_str().unwrap_or_default() {
        "passed" => Outcome::Passed,
        // Specs that the focus leaves out are reported as skipped too, without a message.
        "skipped" if text(&value["Failure"]["Message"]).is_empty() => return None,
        "skipped" => Outcome::Skipped,
        "pending" => return None,
        _ => Outcome::Failed,
    };
    let is_spec = value["LeafNodeType"] == "It";
    // Set-up of the whole suite counts only where it failed.
    if !is_spec && outcome != Outcome::Failed {
        return None;
    }
    let parts = value["ContainerHierarchyTexts"].as_array().into_iter().flatten().map(text);
    let leaf = if is_spec { text(&value["LeafNodeText"]) } else { text(&value["LeafNodeType"]) };
    let name: Vec<String> = parts.chain([leaf]).collect();
    Some(Spec {
        name: name.join(" "),
        outcome,
        seconds: value["RunTime"].as_f64().unwrap_or_default() / 1e9,
        why: text(&value["Failure"]["Message"]),
        output: text(&value["CapturedGinkgoWriterOutput"]),
    })
}
