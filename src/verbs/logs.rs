//! `fairlead logs`: what a container has written, once or as it writes.

use anyhow::{Context, bail};
use futures::AsyncBufReadExt;
use serde_json::Value;

use crate::{
    cluster::{Cluster, ConnectArgs, connect, object_path, resource_path, select_one, with_query},
    failure::ErrorWithHint,
};

/// Print what a container has written
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead logs web-1
  fairlead logs -f deployment/web --tail=20
  fairlead logs web-1 -c sidecar --previous
  fairlead logs -l app=web --prefix --since=10m")]
pub struct Logs {
    /// POD, or TYPE/NAME of something that has pods (deployment/web)
    #[arg(value_name = "POD")]
    pod: Option<String>,
    /// Name of the container, behind the pod
    #[arg(value_name = "CONTAINER")]
    container_word: Option<String>,
    /// Container of the pod
    #[arg(short, long, value_name = "NAME", conflicts_with = "container_word")]
    container: Option<String>,
    /// All containers of the pod
    #[arg(long)]
    all_containers: bool,
    /// Go on printing as the container writes
    #[arg(short, long)]
    follow: bool,
    /// Of the container's former run
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines; -1 for all
    #[arg(long, value_name = "LINES", default_value = "-1", allow_negative_numbers = true)]
    tail: i64,
    /// Only what is newer than, such as 30s, 10m, 2h
    #[arg(long, value_name = "DURATION", value_parser = crate::role::parse_duration)]
    since: Option<std::time::Duration>,
    /// Only what is newer than this RFC 3339 time
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<jiff::Timestamp>,
    /// At most so many bytes
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
    /// Put pod and container before each line
    #[arg(long)]
    prefix: bool,
    /// Of all pods whose labels match
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "pod")]
    selector: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// One container of one pod.
struct Source {
    pod: String,
    container: String,
}

impl Logs {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let mut sources = Vec::new();
        for pod in self.pods(&cluster).await? {
            sources.extend(self.sources(&pod)?);
        }
        let prefix = self.prefix;
        let streams = sources.iter().map(|source| self.print(&cluster, source, prefix));
        if self.follow {
            futures::future::try_join_all(streams).await?;
        } else {
            for stream in streams {
                stream.await?;
            }
        }
        Ok(())
    }

    async fn pods(&self, cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
        let resources = cluster.resources().await?;
        let pods = resources.resolve("pods")?;
        let (selector, shown) = match (&self.pod, &self.selector) {
            (None, None) => {
                return Err(ErrorWithHint::new(
                    "name a pod, or select pods with -l",
                    "for instance: fairlead logs deployment/web",
                )
                .into());
            }
            (None, Some(selector)) => (selector.clone(), format!("-l {selector}")),
            (Some(word), _) => match word.split_once('/') {
                None => return Ok(vec![cluster.get(&object_path(pods, cluster.namespace(), word)?).await?]),
                Some(_) => {
                    let (kind, name) = select_one(resources, std::slice::from_ref(word))?;
                    let owner = cluster.get(&object_path(&kind, cluster.namespace(), &name)?).await?;
                    if kind.kind == "Pod" {
                        return Ok(vec![owner]);
                    }
                    (
                        label_selector(&owner["spec"]["selector"])
                            .with_context(|| format!("{word} selects no pods"))?,
                        word.clone(),
                    )
                }
            },
        };
        let list = with_query(&resource_path(pods, Some(cluster.namespace())), &[("labelSelector", &selector)]);
        let mut found = match cluster.get(&list).await?["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        if found.is_empty() {
            bail!("{shown} has no pods in the namespace {}", cluster.namespace());
        }
        if self.selector.is_none() {
            // As kubectl: of several pods the one that is longest ready says most.
            found.sort_by_key(|pod| (!is_ready(pod), pod["metadata"]["creationTimestamp"].to_string()));
            if found.len() > 1 {
                let name = found[0]["metadata"]["name"].as_str().unwrap_or_default();
                eprintln!("Found {} pods, using pod/{name}", found.len());
            }
            found.truncate(1);
        }
        Ok(found)
    }

    fn sources(&self, pod: &Value) -> anyhow::Result<Vec<Source>> {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let names = |field: &str| -> Vec<String> {
            let containers = pod["spec"][field].as_array().into_iter().flatten();
            containers.filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
        };
        let (main, init) = (names("containers"), names("initContainers"));
        let source = |container: &String| Source { pod: name.to_owned(), container: container.clone() };
        if self.all_containers {
            return Ok(init.iter().chain(&main).map(source).collect());
        }
        if let Some(wanted) = self.container.as_ref().or(self.container_word.as_ref()) {
            if !main.iter().chain(&init).any(|name| name == wanted) {
                bail!("container {wanted} is not valid for pod {name}; it has: {}", [init, main].concat().join(", "));
            }
            return Ok(vec![source(wanted)]);
        }
        let default = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
        let chosen = default.and_then(|default| main.iter().find(|name| *name == default)).or(main.first());
        let chosen = chosen.with_context(|| format!("pod {name} has no containers"))?;
        if main.len() > 1 && default.is_none() {
            eprintln!("Defaulted container \"{chosen}\" out of: {}", [main.clone(), init].concat().join(", "));
        }
        Ok(vec![source(chosen)])
    }

    async fn print(&self, cluster: &Cluster, source: &Source, prefix: bool) -> anyhow::Result<()> {
        let mut query = vec![("container", source.container.clone())];
        let mut flag = |name, on: bool| query.extend(on.then(|| (name, "true".to_owned())));
        flag("follow", self.follow);
        flag("previous", self.previous);
        flag("timestamps", self.timestamps);
        query.extend((self.tail >= 0).then(|| ("tailLines", self.tail.to_string())));
        query.extend(self.since.map(|since| ("sinceSeconds", since_seconds(since).to_string())));
        query.extend(self.since_time.map(|time| ("sinceTime", time.to_string())));
        query.extend(self.limit_bytes.map(|bytes| ("limitBytes", bytes.to_string())));
        let query: Vec<(&str, &str)> = query.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let pods = cluster.resources().await?.resolve("pods")?;
        let path = format!("{}/log", object_path(pods, cluster.namespace(), &source.pod)?);
        let mut body = cluster.stream(&with_query(&path, &query), "*/*").await?;
        let mut line = Vec::new();
        use std::io::Write;
        loop {
            line.clear();
            if body.read_until(b'\n', &mut line).await.context("the log broke off")? == 0 {
                return Ok(());
            }
            let mut out = std::io::stdout().lock();
            if prefix {
                write!(out, "[pod/{}/{}] ", source.pod, source.container)?;
            }
            out.write_all(&line)?;
            out.flush()?;
        }
    }
}

/// The API takes whole seconds, at least one, as a signed number.
fn since_seconds(since: std::time::Duration) -> i64 {
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX).max(1)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The `labelSelector` of a query that selects what an object's selector does; `None` for an empty one.
pub fn label_selector(selector: &Value) -> Option<String> {
    // A Service's selector is the map itself; a workload's is under `matchLabels`, beside `matchExpressions`.
    let is_plain = selector["matchLabels"].is_null() && selector["matchExpressions"].is_null();
    let labels = if is_plain { selector } else { &selector["matchLabels"] };
    let mut terms: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let values = values.join(",");
        terms.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!terms.is_empty()).then(|| terms.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_time_to_look_back_stays_in_the_range_of_the_api() {
        use std::time::Duration;
        let seconds = [Duration::from_millis(200), Duration::from_secs(90), Duration::MAX].map(since_seconds);
        assert_eq!(seconds, [1, 90, i64::MAX]);
    }

    #[test]
    fn selectors_of_services_and_workloads_become_queries() {
        assert_eq!(label_selector(&json!({"app": "web"})).as_deref(), Some("app=web"));
        let workload = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"}]});
        assert_eq!(label_selector(&workload).as_deref(), Some("app=web,tier in (a,b),!old"));
        assert_eq!(label_selector(&Value::Null), None);
    }
}
