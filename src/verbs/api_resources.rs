//! `fairlead api-resources`: what the server serves.

use crate::{
    cluster::{ConnectArgs, connect},
    output::Grid,
};

/// List the resource types that the server has
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead api-resources")]
pub struct ApiResources {
    #[command(flatten)]
    connect: ConnectArgs,
}

impl ApiResources {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let mut grid = Grid::default();
        grid.row(["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]);
        for kind in cluster.resources().await?.all() {
            let namespaced = kind.namespaced.to_string();
            grid.row([
                kind.plural.clone(),
                kind.short_names.join(","),
                kind.api_version(),
                namespaced,
                kind.kind.clone(),
            ]);
        }
        print!("{}", grid.render());
        Ok(())
    }
}
