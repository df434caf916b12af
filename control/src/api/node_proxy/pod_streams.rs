//! `pods/exec`, `pods/attach` and `pods/portforward`: which container of which node is meant, and the request that its
//! agent gets. Pure; Kubernetes' own words.
//!
//! The protocol of the stream is between the client and the agent: here its request is checked, and then bytes are
//! passed on.
//!
//! Sources: `pkg/registry/core/pod/strategy.go` (`streamLocation`, `streamParams`) and
//! `pkg/registry/core/pod/rest` of Kubernetes.

use form_urlencoded::Serializer;
use k8s_openapi::api::core::v1::Pod;

use super::container_choice;
use crate::{
    request::{pod_stream::PodStream, query::Query},
    status::Status,
};

/// The path and query of what the agent is asked for. `asked` is the client's query.
pub fn agent_path(stream: PodStream, pod: &Pod, asked: &Query) -> Result<String, Status> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let verb = match stream {
        PodStream::Exec => "exec",
        PodStream::Attach => "attach",
        PodStream::PortForward => {
            let ports: Vec<String> = forwarded_ports(asked)?.iter().map(u16::to_string).collect();
            let query = if ports.is_empty() { String::new() } else { format!("?port={}", ports.join(",")) };
            return Ok(format!("/portForward/{namespace}/{name}{query}"));
        }
    };
    let container = container_choice::container(pod, asked.parameter("container").unwrap_or_default())?;
    let mut query = Serializer::new(String::new());
    for (theirs, agents) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if asked.is_set(theirs) {
            query.append_pair(agents, "1");
        }
    }
    if stream == PodStream::Exec {
        query.extend_pairs(asked.parameters.iter().filter(|(key, _)| key == "command"));
    }
    Ok(format!("/{verb}/{namespace}/{name}/{container}?{}", query.finish()))
}

/// The ports of a query: each value may be a list.
pub fn forwarded_ports(query: &Query) -> Result<Vec<u16>, Status> {
    let values = query.parameters.iter().filter(|(key, _)| key == "ports").flat_map(|(_, value)| value.split(','));
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

    fn pod() -> Pod {
        let pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"containers": [{"name": "c"}]}});
        serde_json::from_value(pod).unwrap()
    }

    fn path(stream: PodStream, pod: &Pod, query: &str) -> Result<String, String> {
        agent_path(stream, pod, &Query::of(query)).map_err(|status| format!("{} {}", status.code, status.message))
    }

    #[test]
    fn a_command_reaches_the_agent_as_it_was_asked_for() {
        let pod = pod();
        let query = "command=sh&command=-c&command=echo+%22a%26b%22&stdin=true&stdout=1&stderr=&tty=FALSE&x=y";
        assert_eq!(
            path(PodStream::Exec, &pod, query).unwrap(),
            "/exec/shop/web/c?input=1&output=1&error=1&command=sh&command=-c&command=echo+%22a%26b%22"
        );
        assert_eq!(path(PodStream::Attach, &pod, query).unwrap(), "/attach/shop/web/c?input=1&output=1&error=1");
    }

    #[test]
    fn ports_are_numbers() {
        let pod = pod();
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
    fn a_pod_that_is_nowhere_has_no_streams() {
        assert_eq!(node(&pod()).unwrap_err().message, "pod web does not have a host assigned");
    }
}
