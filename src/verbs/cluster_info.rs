//! `fairlead cluster-info`: where the cluster is reached.

use crate::{
    cluster::{ConnectArgs, connect, object_path},
    failure::{self},
};

/// Say where the cluster is reached
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead cluster-info")]
pub struct ClusterInfo {
    #[command(flatten)]
    connect: ConnectArgs,
}

impl ClusterInfo {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let services = cluster.resources().await?.resolve("services")?;
        println!("The control service runs at {}", cluster.server().trim_end_matches('/'));
        match cluster.get(&object_path(services, "kube-system", "kube-dns")?).await {
            Ok(dns) => println!(
                "The cluster's DNS answers at {}:53",
                dns["spec"]["clusterIP"].as_str().unwrap_or("no address")
            ),
            Err(error) => eprintln!("{}", failure::describe(&error)),
        }
        Ok(())
    }
}
