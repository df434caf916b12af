//! `fairlead version`: of this program and of the server.

use serde_json::{Value, json};

use crate::{
    cluster::{ConnectArgs, connect},
    output::{self, Format},
};

/// Print the versions of this program and of the server
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead version
  fairlead version --client
  fairlead version -o json")]
pub struct Version {
    /// Only of this program
    #[arg(long)]
    client: bool,
    /// Print as data: json, yaml
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Version {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut versions = json!({"clientVersion": {"gitVersion": concat!("v", env!("CARGO_PKG_VERSION")),
            "product": "fairlead",
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)}});
        let mut unreachable = None;
        if !self.client {
            match async { connect(&self.connect).await?.get("/version").await }.await {
                Ok(version) => versions["serverVersion"] = version,
                Err(error) => unreachable = Some(error),
            }
        }
        match &self.output {
            Some(format) => output::print_object(format, &versions, "")?,
            None => print(&versions),
        }
        unreachable.map_or(Ok(()), Err)
    }
}

fn print(versions: &Value) {
    for (title, key) in [("Client", "clientVersion"), ("Server", "serverVersion")] {
        if let Some(version) = versions[key]["gitVersion"].as_str() {
            println!("{title} Version: {version}");
        }
    }
}
