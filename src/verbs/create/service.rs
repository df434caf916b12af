//! `fairlead create service …`

use serde_json::{Value, json};

use crate::verbs::submit::SubmitArgs;

/// Create a Service that selects the pods labelled app=NAME
#[derive(Debug, clap::Subcommand)]
pub enum CreateService {
    #[command(name = "clusterip")]
    ClusterIp(ClusterIp),
    #[command(name = "nodeport")]
    NodePort(NodePort),
    #[command(name = "externalname")]
    ExternalName(ExternalName),
}

impl CreateService {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let (submit, object) = match &self {
            Self::ClusterIp(verb) => (verb.submit.clone(), verb.object()?),
            Self::NodePort(verb) => (verb.submit.clone(), verb.object()?),
            Self::ExternalName(verb) => (verb.submit.clone(), verb.object()),
        };
        let cluster = submit.connect().await?;
        submit.submit(&cluster, object, "created").await
    }
}

/// Create a ClusterIP Service
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead create service clusterip web --tcp=80:8080
  fairlead create service clusterip db --clusterip=None")]
pub struct ClusterIp {
    /// Name of the Service
    #[arg(value_name = "NAME")]
    name: String,
    /// Ports: PORT or PORT:TARGET; may be given more than once
    #[arg(long, value_name = "PORT[:TARGET]", value_delimiter = ',')]
    tcp: Vec<String>,
    /// A certain ClusterIP; None for a headless Service
    #[arg(long, value_name = "IP")]
    clusterip: Option<String>,
    #[command(flatten)]
    submit: SubmitArgs,
}

impl ClusterIp {
    fn object(&self) -> anyhow::Result<Value> {
        let headless = self.clusterip.as_deref() == Some("None");
        anyhow::ensure!(headless || !self.tcp.is_empty(), "at least one port must be given: --tcp=80:8080");
        let mut object = service(&self.name, "ClusterIP", &self.tcp, None)?;
        if let Some(address) = &self.clusterip {
            object["spec"]["clusterIP"] = json!(address);
        }
        Ok(object)
    }
}

/// Create a NodePort Service
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead create service nodeport web --tcp=80:8080
  fairlead create service nodeport web --tcp=80 --node-port=30080")]
pub struct NodePort {
    /// Name of the Service
    #[arg(value_name = "NAME")]
    name: String,
    /// Ports: PORT or PORT:TARGET; may be given more than once
    #[arg(long, value_name = "PORT[:TARGET]", value_delimiter = ',', required = true)]
    tcp: Vec<String>,
    /// A certain port of the nodes, for the only port
    #[arg(long, value_name = "PORT")]
    node_port: Option<u16>,
    #[command(flatten)]
    submit: SubmitArgs,
}

impl NodePort {
    fn object(&self) -> anyhow::Result<Value> {
        service(&self.name, "NodePort", &self.tcp, self.node_port)
    }
}

/// Create a Service that is another name for a host outside
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead create service externalname db --external-name=db.example.com")]
pub struct ExternalName {
    /// Name of the Service
    #[arg(value_name = "NAME")]
    name: String,
    /// DNS name that it stands for
    #[arg(long, value_name = "NAME")]
    external_name: String,
    #[command(flatten)]
    submit: SubmitArgs,
}

impl ExternalName {
    fn object(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": self.name, "labels": {"app": self.name}},
            "spec": {"type": "ExternalName", "externalName": self.external_name}})
    }
}

fn service(name: &str, kind: &str, tcp: &[String], node_port: Option<u16>) -> anyhow::Result<Value> {
    let mut ports = Vec::new();
    for text in tcp {
        let (port, target) = text.split_once(':').unwrap_or((text, text));
        let number: u16 = port.parse().map_err(|_| anyhow::anyhow!("--tcp '{text}' is not PORT or PORT:TARGET"))?;
        let target = target.parse::<u16>().map_or(json!(target), |target| json!(target));
        ports.push(json!({"name": text.replace(':', "-"), "port": number, "protocol": "TCP", "targetPort": target}));
    }
    if let (Some(node_port), [port]) = (node_port, &mut ports[..]) {
        port["nodePort"] = json!(node_port);
    }
    let labels = json!({"app": name});
    Ok(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
        "spec": {"type": kind, "selector": labels, "ports": ports}}))
}
