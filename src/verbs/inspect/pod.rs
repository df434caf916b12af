//! `fairlead inspect pod`: asks the agent of a pod's node about its host ports.

use anyhow::Context as _;
use serde_json::json;

use super::{agent, report};
use crate::{
    cluster::{ConnectArgs, connect, object_path},
    output::{self, Format},
    printable::printable,
};

/// Show the host ports of a pod as its node's kernel holds them, with counters
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead inspect pod web-0
  fairlead inspect pod web-0 -o json")]
pub struct InspectPod {
    /// Name of the pod
    #[arg(value_name = "NAME")]
    name: String,
    /// Print as data: json, yaml, jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl InspectPod {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let pods = cluster.resources().await?.resolve("pods")?;
        let pod = cluster.get(&object_path(pods, cluster.namespace(), &self.name)?).await?;
        let node = pod["spec"]["nodeName"].as_str().context("the pod is on no node yet")?;
        let report = agent::ask(&cluster, node, "pods", &self.name).await?;
        let inspection = json!({"pod": {"namespace": cluster.namespace(), "name": self.name,
            "podIP": pod["status"]["podIP"]}, "nodes": [report]});
        match &self.output {
            Some(format) => output::print_object(format, &inspection, &self.name)?,
            None => print!("{}", printable(&report::render_pod(&inspection))),
        }
        Ok(())
    }
}
