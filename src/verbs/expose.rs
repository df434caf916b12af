//! `fairlead expose`: a Service for what is there already.

use anyhow::bail;
use serde_json::{Value, json};

use super::submit::{SubmitArgs, map, pairs};
use crate::{
    cluster::{object_path, select_one},
    failure::ErrorWithHint,
};

/// Make a Service for a Deployment, ReplicaSet, Pod or Service
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead expose deployment web --port=80 --target-port=8080
  fairlead expose deployment hello --type=NodePort --port=8080
  fairlead expose pod db --port=5432 --name=database
  fairlead expose deploy/web --port=80 --dry-run=client -o yaml")]
pub struct Expose {
    /// TYPE NAME, or TYPE/NAME
    #[arg(value_name = "RESOURCE", required = true, num_args = 1..=2)]
    resource: Vec<String>,
    /// Port of the Service [default: the ports that the containers name]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Port of the pods, by number or name [default: --port]
    #[arg(long, value_name = "PORT")]
    target_port: Option<String>,
    /// TCP or UDP
    #[arg(long, value_name = "PROTOCOL", default_value = "TCP")]
    protocol: String,
    /// ClusterIP, NodePort or LoadBalancer
    #[arg(long, value_name = "TYPE", default_value = "ClusterIP")]
    #[arg(value_parser = ["ClusterIP", "NodePort", "LoadBalancer"])]
    r#type: String,
    /// Name of the Service [default: that of the resource]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Select pods by these labels instead of the resource's own
    #[arg(long, value_name = "LABELS")]
    selector: Option<String>,
    /// Labels of the Service [default: those of the resource]
    #[arg(short = 'l', long, value_name = "LABELS")]
    labels: Option<String>,
    /// A certain ClusterIP; None for a headless Service
    #[arg(long, value_name = "IP")]
    cluster_ip: Option<String>,
    /// ClientIP sends each client to one pod
    #[arg(long, value_name = "HOW", value_parser = ["None", "ClientIP"])]
    session_affinity: Option<String>,
    #[command(flatten)]
    submit: SubmitArgs,
}

impl Expose {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = self.submit.connect().await?;
        let (resource, name) = select_one(cluster.resources().await?, &self.resource)?;
        let object = cluster.get(&object_path(&resource, cluster.namespace(), &name)?).await?;
        let service = self.service(&name, &object)?;
        self.submit.submit(&cluster, service, "exposed").await
    }

    fn service(&self, name: &str, object: &Value) -> anyhow::Result<Value> {
        let selector = match &self.selector {
            Some(text) => map(&pairs(text)?),
            None => selector_of(object)?,
        };
        let labels = match &self.labels {
            Some(text) => map(&pairs(text)?),
            None => object["metadata"]["labels"].clone(),
        };
        let target =
            self.target_port.as_ref().map(|port| port.parse::<u16>().map_or(json!(port), |number| json!(number)));
        let ports = match self.port {
            Some(port) => {
                vec![json!({"port": port, "protocol": self.protocol, "targetPort": target.unwrap_or(json!(port))})]
            }
            None => ports_of(object, target.as_ref()),
        };
        if ports.is_empty() {
            return Err(ErrorWithHint::new(
                "couldn't find port via --port flag or introspection",
                "say which: --port=80",
            )
            .into());
        }
        let mut service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name.as_deref().unwrap_or(name)},
            "spec": {"ports": ports, "selector": selector, "type": self.r#type}});
        if labels.is_object() {
            service["metadata"]["labels"] = labels;
        }
        if let Some(address) = &self.cluster_ip {
            service["spec"]["clusterIP"] = json!(address);
        }
        if let Some(affinity) = &self.session_affinity {
            service["spec"]["sessionAffinity"] = json!(affinity);
        }
        Ok(service)
    }
}

fn selector_of(object: &Value) -> anyhow::Result<Value> {
    let selector = match object["kind"].as_str() {
        Some("Pod") => &object["metadata"]["labels"],
        Some("Service") => &object["spec"]["selector"],
        _ => {
            let expressions = &object["spec"]["selector"]["matchExpressions"];
            if expressions.as_array().is_some_and(|list| !list.is_empty()) {
                bail!("couldn't convert expressions - \"{expressions}\" to map-based selector format; use --selector");
            }
            &object["spec"]["selector"]["matchLabels"]
        }
    };
    match selector.as_object() {
        Some(labels) if !labels.is_empty() => Ok(selector.clone()),
        _ => bail!(
            "couldn't retrieve selectors via --selector flag or introspection: the object has no labels to select by"
        ),
    }
}

/// The ports that the containers (or the Service) name.
fn ports_of(object: &Value, target: Option<&Value>) -> Vec<Value> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let found: Vec<(Value, Value)> = match kind {
        "Service" => {
            list(&object["spec"]["ports"]).iter().map(|p| (p["port"].clone(), p["protocol"].clone())).collect()
        }
        _ => {
            let spec = if kind == "Pod" { &object["spec"] } else { &object["spec"]["template"]["spec"] };
            let ports = list(&spec["containers"]).into_iter().flat_map(|container| list(&container["ports"]));
            ports.map(|port| (port["containerPort"].clone(), port["protocol"].clone())).collect()
        }
    };
    let several = found.len() > 1;
    let each = found.into_iter().enumerate().map(|(i, (port, protocol))| {
        let protocol = if protocol.is_null() { json!("TCP") } else { protocol };
        let mut service_port = json!({"port": port, "protocol": protocol, "targetPort": target.unwrap_or(&port)});
        if several {
            service_port["name"] = json!(format!("port-{}", i + 1));
        }
        service_port
    });
    each.collect()
}
