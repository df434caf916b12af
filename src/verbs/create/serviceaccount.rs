//! `fairlead create serviceaccount`

use serde_json::json;

use crate::verbs::submit::SubmitArgs;

/// Create a ServiceAccount
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead create serviceaccount builder")]
pub struct CreateServiceAccount {
    /// Name of the ServiceAccount
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    submit: SubmitArgs,
}

impl CreateServiceAccount {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = self.submit.connect().await?;
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": self.name}});
        self.submit.submit(&cluster, object, "created").await
    }
}
