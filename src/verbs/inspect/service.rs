//! `fairlead inspect service`: asks every node's agent about one Service and shows their answers side by side.

use anyhow::ensure;
use serde_json::json;

use super::{agent, report};
use crate::{
    cluster::{Cluster, ConnectArgs, connect, object_path, resource_path},
    failure::{self, AlreadyReported},
    output::{self, Format},
    printable::printable,
};

/// Show frontends, backends that each kernel holds, endpoints left out and why, DNS names and where they lead, counters
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead inspect service web
  fairlead inspect service web --node b
  fairlead inspect service web -o json")]
pub struct InspectService {
    /// Name of the Service
    #[arg(value_name = "NAME")]
    name: String,
    /// Ask only this node; may be given more than once
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,
    /// Print as data: json, yaml, jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl InspectService {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let services = cluster.resources().await?.resolve("services")?;
        // First: a Service that does not exist is told as such, and not once for each node.
        let service = cluster.get(&object_path(services, cluster.namespace(), &self.name)?).await?;
        let nodes = self.nodes(&cluster).await?;
        let answers =
            futures::future::join_all(nodes.iter().map(|node| agent::ask(&cluster, node, "services", &self.name)))
                .await;
        let (mut reports, mut failures) = (Vec::new(), Vec::new());
        for (node, answer) in nodes.iter().zip(answers) {
            match answer {
                Ok(report) => reports.push(report),
                Err(error) => failures.push(json!({"node": node, "error": failure::describe(&error)})),
            }
        }
        let inspection = json!({"service": {"namespace": cluster.namespace(), "name": self.name,
            "type": service["spec"]["type"], "clusterIP": service["spec"]["clusterIP"]}, "nodes": reports,
                "unreachable": failures});
        match &self.output {
            Some(format) => output::print_object(format, &inspection, &self.name)?,
            None => print!("{}", printable(&report::render(&inspection))),
        }
        if failures.is_empty() { Ok(()) } else { Err(AlreadyReported.into()) }
    }

    async fn nodes(&self, cluster: &Cluster) -> anyhow::Result<Vec<String>> {
        if !self.node.is_empty() {
            return Ok(self.node.clone());
        }
        let list = cluster.get(&resource_path(cluster.resources().await?.resolve("nodes")?, None)).await?;
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let nodes: Vec<String> =
            items.iter().filter_map(|node| node["metadata"]["name"].as_str().map(str::to_owned)).collect();
        ensure!(!nodes.is_empty(), "the cluster has no nodes, so nothing carries this Service");
        Ok(nodes)
    }
}
