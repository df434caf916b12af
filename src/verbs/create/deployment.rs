//! `fairlead create deployment`

use serde_json::{Value, json};

use crate::verbs::submit::SubmitArgs;

/// Create a Deployment
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead create deployment web --image=nginx --replicas=2 --port=80
  fairlead create deployment sleeper --image=busybox -- sleep 3600")]
pub struct CreateDeployment {
    /// Name of the Deployment
    #[arg(value_name = "NAME")]
    name: String,
    /// Image; may be given more than once for several containers
    #[arg(long, value_name = "IMAGE", required = true, value_delimiter = ',')]
    image: Vec<String>,
    /// How many pods
    #[arg(short, long, value_name = "NUMBER", default_value = "1")]
    replicas: u32,
    /// Port that the container listens on
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The container's command
    #[arg(last = true, value_name = "WORD")]
    words: Vec<String>,
    #[command(flatten)]
    submit: SubmitArgs,
}

impl CreateDeployment {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        anyhow::ensure!(self.words.is_empty() || self.image.len() == 1, "a command can be given for one image only");
        let cluster = self.submit.connect().await?;
        self.submit.submit(&cluster, self.object(), "created").await
    }

    fn object(&self) -> Value {
        let labels = json!({"app": self.name});
        let containers: Vec<Value> = self.image.iter().map(|image| self.container(image)).collect();
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": self.name, "labels": labels},
            "spec": {"replicas": self.replicas, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}})
    }

    fn container(&self, image: &str) -> Value {
        let mut container = json!({"name": container_name(image), "image": image});
        if let Some(port) = self.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if !self.words.is_empty() {
            container["command"] = json!(self.words);
        }
        container
    }
}

/// The last part of an image's name, without tag and digest, as a container may be named.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let bare = last.split(['@', ':']).next().unwrap_or(last);
    let name: String = bare.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    name.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_named_after_their_image() {
        assert_eq!(container_name("gcr.io/google_containers/echoserver:1.4"), "echoserver");
        assert_eq!(container_name("localhost:5000/My_Image@sha256:00"), "my-image");
    }
}
