//! The pod and the container that a person means.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    cluster::{Cluster, object_path, resource_path, select_one, with_query},
    verbs::logs::label_selector,
};

/// One container of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTarget {
    /// The pod, as the API has it.
    pub pod: Value,
    /// Where the API has it.
    pub path: String,
    /// Name of the container.
    pub container: String,
}

impl PodTarget {
    /// The pod's name.
    pub fn name(&self) -> &str {
        self.pod["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The container as the pod's spec has it, if it has one of this name.
    pub fn container_spec(&self) -> Option<&Value> {
        all_containers(&self.pod).find(|container| container["name"] == *self.container)
    }

    /// Refuses a pod whose containers have all ended; `verb` is what was to be done: `exec into`.
    pub fn check_is_not_completed(&self, verb: &str) -> anyhow::Result<()> {
        match self.pod["status"]["phase"].as_str() {
            Some(phase @ ("Succeeded" | "Failed")) => {
                bail!("cannot {verb} a container in a completed pod; current phase is {phase}")
            }
            _ => Ok(()),
        }
    }
}

/// Finds the pod that `word` names: a pod, or `TYPE/NAME` of something that has pods. Answers with what was named,
/// where that is no pod, too.
pub async fn find(
    cluster: &Cluster,
    word: &str,
    container: Option<&str>,
    quiet: bool,
) -> anyhow::Result<(PodTarget, Option<Value>)> {
    let resources = cluster.resources().await?;
    let pods = resources.resolve("pods")?;
    let (pod, owner) = match word.split_once('/') {
        None => (cluster.get(&object_path(pods, cluster.namespace(), word)?).await?, None),
        Some(_) => {
            let (kind, name) = select_one(resources, std::slice::from_ref(&word.to_owned()))?;
            let named = cluster.get(&object_path(&kind, cluster.namespace(), &name)?).await?;
            if kind.kind == "Pod" { (named, None) } else { (running_pod_of(cluster, word, &named).await?, Some(named)) }
        }
    };
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let path = object_path(pods, cluster.namespace(), name)?;
    let container = choose(&pod, container, quiet)?;
    Ok((PodTarget { pod, path, container }, owner))
}

/// Of the pods that an object selects, one that runs; the oldest of them.
async fn running_pod_of(cluster: &Cluster, word: &str, owner: &Value) -> anyhow::Result<Value> {
    let selector = label_selector(&owner["spec"]["selector"]).with_context(|| format!("{word} selects no pods"))?;
    let pods = cluster.resources().await?.resolve("pods")?;
    let list = with_query(&resource_path(pods, Some(cluster.namespace())), &[("labelSelector", &selector)]);
    let mut found = cluster.get(&list).await?;
    let items = found["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let running = items
        .into_iter()
        .filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null());
    let oldest = running.min_by_key(|pod| pod["metadata"]["creationTimestamp"].to_string());
    oldest.with_context(|| format!("no pod of {word} runs in the namespace {}", cluster.namespace()))
}

fn all_containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.into_iter().flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
}

/// As kubectl: the one asked for, the one that the pod's annotation names, or the first.
fn choose(pod: &Value, asked: Option<&str>, quiet: bool) -> anyhow::Result<String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    // Whether there is such a one, the server says.
    if let Some(asked) = asked {
        return Ok(asked.to_owned());
    }
    let names: Vec<&str> = all_containers(pod).filter_map(|container| container["name"].as_str()).collect();
    let annotation = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    if let Some(default) = annotation.filter(|default| names.contains(default)) {
        return Ok(default.to_owned());
    }
    let first = pod["spec"]["containers"][0]["name"].as_str();
    let first = first.with_context(|| format!("pod {name} has no containers"))?;
    if names.len() > 1 && !quiet {
        eprintln!("Defaulted container \"{first}\" out of: {}", names.join(", "));
    }
    Ok(first.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_is_the_one_asked_for_or_annotated_or_the_first() {
        let mut pod = json!({"metadata": {"name": "web"}, "spec": {"initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(choose(&pod, None, true).unwrap(), "a");
        assert_eq!(choose(&pod, Some("i"), true).unwrap(), "i");
        pod["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(choose(&pod, None, true).unwrap(), "b");
        pod["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "gone"});
        assert_eq!(choose(&pod, None, true).unwrap(), "a");
    }
}
