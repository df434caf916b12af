//! The control plane beside Kubernetes': the same nodes, pods, lists and deletions, one contestant after the other in
//! each round.

use std::path::Path;

use crate::{
    api_load,
    fairlead_server::FairleadServer,
    kit::Result,
    kubernetes::{self, Kubernetes},
    report::Report,
};

const NODES: usize = 1000;
const PODS: usize = 10_000;
const REPLICAS: usize = 1000;
const CLIENTS: usize = 16;
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// The steps, numbered as they stand in the table.
const STEPS: [&str; 5] = [
    "1: 10,000 pods created by 16 clients and bound to 1,000 nodes, s",
    "2: list of 10,000 pods as JSON, ms",
    "3: list of 10,000 pods as a Table, ms",
    "4: deletecollection of 10,000 pods, s",
    "5: Deployment of 1,000 created and bound, s",
];

pub fn run(peers: &Path, dir: &Path) -> Result {
    let mut report = Report::new("control", "Control plane", "step", "s or ms, as the step says");
    for step in STEPS {
        report.note(step);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let work = tempfile::tempdir()?;
        {
            // Its nodes are made by the bench and have no agent behind them.
            let flags = ["--node-monitor-grace-period", "24h"];
            let server = FairleadServer::start(work.path(), &flags).await?;
            contest("fairlead", &server.config, &mut report).await?;
        }
        match kubernetes::missing(peers) {
            Some(why) => report.note(why),
            None => {
                let mut kubernetes = Kubernetes::start(peers, &work.path().join("kubernetes")).await?;
                let outcome = contest("Kubernetes", &kubernetes.config.clone(), &mut report).await;
                outcome.map_err(|error| format!("{error}\n{}", kubernetes.ended().unwrap_or_default()))?;
            }
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    report.publish(dir)
}

async fn contest(name: &str, config: &kube::Config, report: &mut Report) -> Result {
    let clients = api_load::clients(config, CLIENTS)?;
    api_load::register_nodes(&clients, NODES).await?;
    api_load::nodes_schedulable(&clients[0], NODES, std::time::Duration::from_secs(60)).await?;
    let figures = [
        api_load::create_and_schedule_pods(&clients, PODS).await?,
        api_load::list_pods(&clients[0], JSON, 5).await?,
        api_load::list_pods(&clients[0], TABLE, 5).await?,
        api_load::delete_pods(&clients[0]).await?,
        api_load::schedule_deployment(&clients[0], REPLICAS).await?,
    ];
    for (index, figure) in figures.into_iter().enumerate() {
        report.add(name, (index + 1) as f64, figure);
    }
    Ok(())
}
