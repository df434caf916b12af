//! `fairlead run`: one pod from the command line.

use serde_json::{Value, json};

use super::submit::{SubmitArgs, map, pairs};

/// Run an image as a pod
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead run web --image=nginx --port=80
  fairlead run hello --image=hello-node:v1 --labels=app=hello --env=PORT=9000
  fairlead run once --image=busybox --restart=Never -- echo hello
  fairlead run web --image=nginx --dry-run=client -o yaml")]
pub struct Run {
    /// Name of the pod
    #[arg(value_name = "NAME")]
    name: String,
    /// Image of its container
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// When the image is pulled: Always, IfNotPresent or Never
    #[arg(long, value_name = "WHEN", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,
    /// Port that the container listens on
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Environment: NAME=VALUE; may be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Labels of the pod [default: run=NAME]
    #[arg(short = 'l', long, value_name = "LABELS")]
    labels: Option<String>,
    /// Always, OnFailure or Never
    #[arg(long, value_name = "WHEN", default_value = "Always", value_parser = ["Always", "OnFailure", "Never"])]
    restart: String,
    /// The words behind `--` are the command, not its arguments
    #[arg(long)]
    command: bool,
    /// Arguments for the container
    #[arg(last = true, value_name = "WORD")]
    words: Vec<String>,
    #[command(flatten)]
    submit: SubmitArgs,
}

impl Run {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let pod = self.pod()?;
        let cluster = self.submit.connect().await?;
        self.submit.submit(&cluster, pod, "created").await
    }

    fn pod(&self) -> anyhow::Result<Value> {
        let labels = pairs(self.labels.as_deref().unwrap_or(&format!("run={}", self.name)))?;
        let mut container = json!({"name": self.name, "image": self.image});
        if !self.env.is_empty() {
            // A value may hold commas and further equal signs.
            let variables: anyhow::Result<Vec<Value>> = self
                .env
                .iter()
                .map(|pair| match pair.split_once('=') {
                    Some((name, value)) if !name.is_empty() => Ok(json!({"name": name, "value": value})),
                    _ => anyhow::bail!("--env '{pair}' is not NAME=VALUE"),
                })
                .collect();
            container["env"] = Value::Array(variables?);
        }
        if let Some(port) = self.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if let Some(policy) = &self.image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        if !self.words.is_empty() {
            container[if self.command { "command" } else { "args" }] = json!(self.words);
        }
        Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name, "labels": map(&labels)},
            "spec": {"containers": [container], "restartPolicy": self.restart}}))
    }
}
