//! `pods/exec`, `pods/attach` and `pods/portforward`: which container of which node is meant, and the request that its
//! agent gets. Pure; Kubernetes' own words.
//!
//! The protocol of the stream is between the client and the agent: here its request is checked, and then bytes are
//! passed on.
//!
//! Sources: `pkg/registry/core/pod/strategy.go` (`streamLocation`, `validateContainer`, `streamParams`) and
//! `pkg/registry/core/pod/rest` of Kubernetes.

use form_urlencoded::Serializer;
use k8s_openapi::api::core::v1::Pod;

use crate::status::Status;

/// What is done with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodStream {
    /// A command is run in a container.
    Exec,
    /// A container's main process is connected to.
    Attach,
    /// Ports are connected to.
    PortForward,
}

impl PodStream {
    /// By its subresource.
    pub fn of(resource: &str, subresource: Option<&str>) -> Option<Self> {
        match (resource, subresource) {
            ("pods", Some("exec")) => Some(Self::Exec),
            ("pods", Some("attach")) => Some(Self::Attach),
            ("pods", Some("portforward")) => Some(Self::PortForward),
            _ => None,
        }
    }

    /// The path and query of the agent's answer. `asked` is the client's query.
    pub fn path(self, pod: &Pod, asked: &[(String, String)]) -> Result<String, Status> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        if self == Self::PortForward {
            let ports: Vec<String> = ports(asked)?.iter().map(u16::to_string).collect();
            let query = if ports.is_empty() { String::new() } else { format!("?port={}", ports.join(",")) };
            return Ok(format!("/portForward/{namespace}/{name}{query}"));
        }
        let asked_container = asked.iter().find(|(key, _)| key == "container").map(|(_, value)| value.as_str());
        let container = container(pod, asked_container.unwrap_or_default())?;
        let mut query = Serializer::new(String::new());
        for (theirs, agents) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
            if is_set(asked, theirs) {
                query.append_pair(agents, "1");
            }
        }
        if self == Self::Exec {
            query.extend_pairs(asked.iter().filter(|(key, _)| key == "command"));
        }
        let verb = if self == Self::Exec { "exec" } else { "attach" };
        Ok(format!("/{verb}/{namespace}/{name}/{container}?{}", query.finish()))
    }
}

/// Whether a flag of the query is set, as Kubernetes reads one: by its first value.
pub fn is_set(parameters: &[(String, String)], name: &str) -> bool {
    let value = parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

/// The ports of a query: each value may be a list.
pub fn ports(parameters: &[(String, String)]) -> Result<Vec<u16>, Status> {
    let values = parameters.iter().filter(|(key, _)| key == "ports").flat_map(|(_, value)| value.split(','));
    values
        .map(|value| {
            let problem = match value.parse() {
                Ok(port) => return Ok(port),
                Err(_) if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => "value out of range",
                Err(_) => "invalid syntax",
            };
            let why = format!("cannot convert to []int32: strconv.ParseUint: parsing {value:?}: {problem}");
            Err(Status::bad_request(why))
        })
        .collect()
}

/// The container that is asked for, or the only one.
fn container(pod: &Pod, asked: &str) -> Result<String, Status> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten().map(|one| one.name.as_str());
    let ephemeral =
        spec.and_then(|spec| spec.ephemeral_containers.as_ref()).into_iter().flatten().map(|one| one.name.as_str());
    let mut all = init.chain(containers.iter().map(|one| one.name.as_str())).chain(ephemeral);
    match (asked, containers) {
        ("", [only]) => Ok(only.name.clone()),
        ("", []) => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        ("", _) => {
            let names = all.collect::<Vec<_>>().join(" ");
            let why = format!("a container name must be specified for pod {name}, choose one of: [{names}]");
            Err(Status::bad_request(why))
        }
        (asked, _) if all.any(|one| one == asked) => Ok(asked.to_owned()),
        (asked, _) => Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))),
    }
}

/// The node that the pod is on.
pub fn node(pod: &Pod) -> Result<&str, Status> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    node.ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(containers: &[&str], init: &[&str]) -> Pod {
        let list = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"containers": list(containers), "initContainers": list(init),
                "ephemeralContainers": [{"name": "debugger"}]},
        }))
        .unwrap()
    }

    fn path(stream: PodStream, pod: &Pod, query: &str) -> Result<String, String> {
        let asked: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        stream.path(pod, &asked).map_err(|status| format!("{} {}", status.code, status.message))
    }

    #[test]
    fn a_command_reaches_the_agent_as_it_was_asked_for() {
        let pod = pod(&["c"], &[]);
        let query = "command=sh&command=-c&command=echo+%22a%26b%22&stdin=true&stdout=1&stderr=&tty=FALSE&x=y";
        assert_eq!(
            path(PodStream::Exec, &pod, query).unwrap(),
            "/exec/shop/web/c?input=1&output=1&error=1&command=sh&command=-c&command=echo+%22a%26b%22"
        );
        assert_eq!(path(PodStream::Attach, &pod, query).unwrap(), "/attach/shop/web/c?input=1&output=1&error=1");
    }

    #[test]
    fn ports_are_numbers() {
        let pod = pod(&["c"], &[]);
        let forward = |query| path(PodStream::PortForward, &pod, query);
        assert_eq!(forward("").unwrap(), "/portForward/shop/web");
        assert_eq!(forward("ports=80,443&ports=8080").unwrap(), "/portForward/shop/web?port=80,443,8080");
        let refused = |value: &str, problem: &str| {
            Err(format!("400 cannot convert to []int32: strconv.ParseUint: parsing {value:?}: {problem}"))
        };
        assert_eq!(forward("ports=http"), refused("http", "invalid syntax"));
        assert_eq!(forward("ports=70000"), refused("70000", "value out of range"));
        assert_eq!(forward("ports=80,"), refused("", "invalid syntax"));
    }

    #[test]
    fn a_container_that_is_not_clear_or_not_there_is_refused_with_kubernetes_words() {
        let several = pod(&["a", "b"], &["i"]);
        let exec = |pod, query| path(PodStream::Exec, pod, query);
        for query in ["container=a", "container=i", "container=debugger"] {
            let wanted = format!("/exec/shop/web/{}?", query.trim_start_matches("container="));
            assert_eq!(exec(&several, query), Ok(wanted));
        }
        assert_eq!(
            exec(&several, "stdout=1").unwrap_err(),
            "400 a container name must be specified for pod web, choose one of: [i a b debugger]"
        );
        assert_eq!(exec(&several, "container=x").unwrap_err(), "400 container x is not valid for pod web");
        assert_eq!(exec(&pod(&[], &[]), "").unwrap_err(), "400 a container name must be specified for pod web");
        assert_eq!(node(&several).unwrap_err().message, "pod web does not have a host assigned");
    }
}
