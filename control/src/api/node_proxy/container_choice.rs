//! Which container of a pod a log, a command or an attachment is of. Pure; Kubernetes' own words.
//!
//! Source: `validateContainer` of `pkg/registry/core/pod/strategy.go`.

use k8s_openapi::api::core::v1::Pod;

use crate::status::Status;

/// The container that is asked for; the only one where `asked` is empty.
pub fn container(pod: &Pod, asked: &str) -> Result<String, Status> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(containers: &[&str], init: &[&str]) -> Pod {
        let list = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {"containers": list(containers), "initContainers": list(init),
                "ephemeralContainers": [{"name": "debugger"}]},
        }))
        .unwrap()
    }

    #[test]
    fn one_container_needs_no_name_and_several_do() {
        let several = pod(&["a", "b"], &["i"]);
        assert_eq!(container(&pod(&["c"], &["i"]), "").unwrap(), "c");
        for asked in ["a", "i", "debugger"] {
            assert_eq!(container(&several, asked).unwrap(), asked);
        }
        let refusal = |pod: &Pod, asked: &str| container(pod, asked).unwrap_err();
        let unclear = "a container name must be specified for pod web, choose one of: [i a b debugger]";
        assert_eq!((refusal(&several, "").code, refusal(&several, "").message.as_str()), (400, unclear));
        assert_eq!(refusal(&several, "x").message, "container x is not valid for pod web");
        assert_eq!(refusal(&pod(&[], &[]), "").message, "a container name must be specified for pod web");
    }
}
