//! `fairlead create namespace`

use serde_json::json;

use crate::verbs::submit::SubmitArgs;

/// Create a Namespace
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead create namespace team-a")]
pub struct CreateNamespace {
    /// Name of the Namespace
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    submit: SubmitArgs,
}

impl CreateNamespace {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = self.submit.connect().await?;
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}});
        self.submit.submit(&cluster, object, "created").await
    }
}
