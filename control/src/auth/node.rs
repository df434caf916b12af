//! The node authoriser: what the agent of one node may do, and what it may write into an object.
//!
//! A node that falls into wrong hands gives away what runs on it and nothing else. Pure: see [`super::authorize`]. The rules are
//! those of Kubernetes' Node authoriser and its NodeRestriction admission.

use serde_json::Value;

use super::{
    attributes::Resource,
    authorize::{Decision, Fact, Referenced, own_signing_request},
};

/// Decides for the agent of `node`, whose user is `user`.
pub(super) fn authorize(node: &str, user: &str, r: &Resource) -> Decision {
    let reads = matches!(r.verb, "get" | "list" | "watch");
    match (r.group.as_str(), r.resource.as_str(), r.subresource.as_str()) {
        ("", "services" | "namespaces" | "nodes", "") | ("discovery.k8s.io", "endpointslices", "") if reads => {
            Decision::Allow
        }
        ("", "nodes", "") => match r.verb {
            // The name is in the body: `check_body` sees to it.
            "create" => Decision::Allow,
            "update" | "patch" => own_name(node, r),
            _ => Decision::Deny("a node may not delete nodes".into()),
        },
        ("", "nodes", "status") => match r.verb {
            "get" | "update" | "patch" => own_name(node, r),
            _ => Decision::Deny(String::new()),
        },
        ("coordination.k8s.io", "leases", "") if r.namespace == "kube-node-lease" => match r.verb {
            "create" => Decision::Allow,
            "get" | "update" | "patch" | "delete" => own_name(node, r),
            "list" | "watch" if !r.name.is_empty() => own_name(node, r),
            _ => Decision::Deny("a node may only access its own lease".into()),
        },
        ("", "pods", "") => match r.verb {
            "list" | "watch" if r.node_selector == node => Decision::Allow,
            "list" | "watch" if r.name.is_empty() || r.namespace.is_empty() => Decision::Deny(format!(
                "a node may only read its own pods: use the field selector spec.nodeName={node}"
            )),
            "get" | "list" | "watch" | "delete" => bound(node, r),
            _ => Decision::Deny("a node may neither create pods nor change their spec".into()),
        },
        ("", "pods", "status") => match r.verb {
            "get" | "update" | "patch" => bound(node, r),
            _ => Decision::Deny(String::new()),
        },
        ("", "secrets", "") => referenced(node, Referenced::Secret, r),
        ("", "configmaps", "") => referenced(node, Referenced::ConfigMap, r),
        ("" | "events.k8s.io", "events", "") => match r.verb {
            "create" | "update" | "patch" => Decision::Allow,
            _ => Decision::Deny(String::new()),
        },
        ("certificates.k8s.io", "certificatesigningrequests", "") => own_signing_request(user, r),
        _ => Decision::Deny(String::new()),
    }
}

fn own_name(node: &str, r: &Resource) -> Decision {
    if r.name == node {
        Decision::Allow
    } else {
        Decision::Deny(format!("node \"{node}\" may only modify its own {}", r.resource))
    }
}

fn bound(node: &str, r: &Resource) -> Decision {
    Decision::AllowIf(Fact::PodBoundTo { namespace: r.namespace.clone(), pod: r.name.clone(), node: node.to_owned() })
}

fn referenced(node: &str, kind: Referenced, r: &Resource) -> Decision {
    match r.verb {
        "get" | "list" | "watch" if !r.name.is_empty() && !r.namespace.is_empty() => {
            Decision::AllowIf(Fact::ReferencedByPodOf {
                node: node.to_owned(),
                kind,
                namespace: r.namespace.clone(),
                name: r.name.clone(),
            })
        }
        "get" | "list" | "watch" => {
            Decision::Deny(format!("a node may only read {} that its pods name, one at a time", r.resource))
        }
        _ => Decision::Deny(String::new()),
    }
}

/// What is wrong with a body that the agent of `node` sends to be stored in the place of `old`, if anything.
///
/// Covers what the request line cannot show: the name of an object to be created, and the fields of its own Node that decide
/// where pods go, which are not the node's to choose once it is there.
pub fn check_body(node: &str, resource: &str, old: Option<&Value>, new: &Value) -> Result<(), String> {
    if !matches!(resource, "nodes" | "leases") {
        return Ok(());
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    if name != node {
        return Err(format!("node \"{node}\" is not allowed to write {resource} \"{name}\""));
    }
    if resource == "nodes" { check_own_node(node, old, new) } else { Ok(()) }
}

/// A node may register with taints, and afterwards neither lift nor add any; its pod subnet was never its to choose.
fn check_own_node(node: &str, old: Option<&Value>, new: &Value) -> Result<(), String> {
    let field = |object: &Value, name: &str| object["spec"].get(name).cloned().unwrap_or(Value::Null);
    for name in ["podCIDR", "podCIDRs", "taints"] {
        let before = match old {
            None if name == "taints" => continue,
            None => Value::Null,
            Some(old) => field(old, name),
        };
        if field(new, name) != before {
            return Err(format!("node \"{node}\" is not allowed to modify its spec.{name}"));
        }
    }
    Ok(())
}

/// The names of the Secrets and ConfigMaps that a pod's text names.
pub(super) fn references(pod: &k8s_openapi::api::core::v1::PodSpec, kind: Referenced, name: &str) -> bool {
    use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar};
    let is = |candidate: Option<&str>| candidate == Some(name);
    let secret = kind == Referenced::Secret;
    let in_env = |env: &EnvVar| {
        let Some(from) = &env.value_from else { return false };
        if secret {
            is(from.secret_key_ref.as_ref().map(|r| r.name.as_str()))
        } else {
            is(from.config_map_key_ref.as_ref().map(|r| r.name.as_str()))
        }
    };
    let in_env_from = |from: &EnvFromSource| {
        if secret {
            is(from.secret_ref.as_ref().map(|r| r.name.as_str()))
        } else {
            is(from.config_map_ref.as_ref().map(|r| r.name.as_str()))
        }
    };
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    let in_containers = containers
        .flat_map(|c| {
            let env = c.env.iter().flatten().map(in_env);
            env.chain(c.env_from.iter().flatten().map(in_env_from)).collect::<Vec<_>>()
        })
        .any(|found| found);
    let in_volumes = pod.volumes.iter().flatten().any(|volume| {
        let direct = if secret {
            is(volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()))
        } else {
            is(volume.config_map.as_ref().map(|c| c.name.as_str()))
        };
        let projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten()).any(|source| {
            if secret {
                is(source.secret.as_ref().map(|s| s.name.as_str()))
            } else {
                is(source.config_map.as_ref().map(|c| c.name.as_str()))
            }
        });
        direct || projected
    });
    let in_pull_secrets = secret && pod.image_pull_secrets.iter().flatten().any(|s| s.name == name);
    in_containers || in_volumes || in_pull_secrets
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::attributes::Attributes, *};

    fn decide(method: &str, uri: &str) -> Decision {
        let uri: http::Uri = uri.parse().unwrap();
        match Attributes::of(&method.parse().unwrap(), uri.path(), uri.query()) {
            Attributes::Resource(r) => authorize("n1", "system:node:n1", &r),
            path => panic!("{path:?}"),
        }
    }

    #[test]
    fn what_a_node_may_and_may_not() {
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let may = [
            ("GET", "/api/v1/services?watch=true".to_owned()),
            ("GET", "/apis/discovery.k8s.io/v1/endpointslices".into()),
            ("GET", "/api/v1/nodes".into()),
            ("GET", "/api/v1/nodes/n2".into()),
            ("GET", "/api/v1/namespaces".into()),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&watch=1".into()),
            ("POST", "/api/v1/nodes".into()),
            ("PATCH", "/api/v1/nodes/n1".into()),
            ("PUT", "/api/v1/nodes/n1/status".into()),
            ("POST", leases.into()),
            ("PUT", format!("{leases}/n1")),
            ("GET", format!("{leases}/n1")),
            ("POST", "/api/v1/namespaces/a/events".into()),
            ("PATCH", "/apis/events.k8s.io/v1/namespaces/a/events/e".into()),
            ("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests".into()),
        ];
        for (method, uri) in may {
            assert_eq!(decide(method, &uri), Decision::Allow, "{method} {uri}");
        }
        let may_not = [
            ("GET", "/api/v1/pods"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=status.phase%3DRunning"),
            ("POST", "/api/v1/namespaces/a/pods"),
            ("PUT", "/api/v1/namespaces/a/pods/p"),
            ("POST", "/api/v1/namespaces/a/pods/p/binding"),
            ("PUT", "/api/v1/nodes/n2"),
            ("PATCH", "/api/v1/nodes/n2/status"),
            ("DELETE", "/api/v1/nodes/n1"),
            ("GET", "/api/v1/nodes/n1/proxy/pods"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/n1"),
            ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"),
            ("GET", "/api/v1/secrets"),
            ("GET", "/api/v1/namespaces/a/secrets"),
            ("GET", "/api/v1/namespaces/a/configmaps?watch=true"),
            ("PUT", "/api/v1/namespaces/a/secrets/s"),
            ("DELETE", "/api/v1/namespaces/a/configmaps/c"),
            ("POST", "/api/v1/namespaces/a/services"),
            ("PUT", "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/e"),
            ("GET", "/apis/apps/v1/deployments"),
            ("GET", "/api/v1/events"),
            ("PUT", "/apis/certificates.k8s.io/v1/certificatesigningrequests/r/approval"),
            ("GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests"),
        ];
        for (method, uri) in may_not {
            assert!(matches!(decide(method, uri), Decision::Deny(_)), "{method} {uri}: {:?}", decide(method, uri));
        }
    }

    #[test]
    fn what_hangs_on_the_pods_of_a_node() {
        let bound = Decision::AllowIf(Fact::PodBoundTo { namespace: "a".into(), pod: "p".into(), node: "n1".into() });
        for (method, uri) in [
            ("GET", "/api/v1/namespaces/a/pods/p"),
            ("DELETE", "/api/v1/namespaces/a/pods/p"),
            ("PATCH", "/api/v1/namespaces/a/pods/p/status"),
            ("PUT", "/api/v1/namespaces/a/pods/p/status"),
        ] {
            assert_eq!(decide(method, uri), bound, "{method} {uri}");
        }
        let named = |kind, name: &str| {
            Decision::AllowIf(Fact::ReferencedByPodOf {
                node: "n1".into(),
                kind,
                namespace: "a".into(),
                name: name.into(),
            })
        };
        assert_eq!(decide("GET", "/api/v1/namespaces/a/secrets/s"), named(Referenced::Secret, "s"));
        assert_eq!(
            decide("GET", "/api/v1/namespaces/a/configmaps?watch=true&fieldSelector=metadata.name%3Dc"),
            named(Referenced::ConfigMap, "c")
        );
    }

    #[test]
    fn a_body_with_another_name_is_refused() {
        let node = |name: &str| json!({"metadata": {"name": name}, "spec": {}});
        assert!(check_body("n1", "nodes", None, &node("n1")).is_ok());
        assert!(check_body("n1", "nodes", None, &node("n2")).is_err());
        assert!(check_body("n1", "leases", None, &node("n2")).is_err());
    }

    #[test]
    fn a_node_may_not_lift_its_own_taints_nor_move_its_subnet() {
        let node = |spec: Value| json!({"metadata": {"name": "n1"}, "spec": spec});
        let old = node(json!({"taints": [{"key": "k", "effect": "NoSchedule"}], "podCIDR": "10.244.1.0/24"}));
        assert!(check_body("n1", "nodes", Some(&old), &old).is_ok());
        assert!(check_body("n1", "nodes", Some(&old), &node(json!({"podCIDR": "10.244.1.0/24"}))).is_err());
        let mut moved = old.clone();
        moved["spec"]["podCIDR"] = "10.244.2.0/24".into();
        assert!(check_body("n1", "nodes", Some(&old), &moved).is_err());
        assert!(check_body("n1", "nodes", Some(&node(json!({}))), &moved).is_err());
        assert!(check_body("n1", "nodes", None, &moved).is_err());
        assert!(
            check_body("n1", "nodes", None, &node(json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}))).is_ok()
        );
    }

    #[test]
    fn every_place_where_a_pod_can_name_a_secret_is_seen() {
        let spec = |v: Value| serde_json::from_value(v).unwrap();
        let container = |v: Value| spec(json!({"containers": [v]}));
        for pod in [
            container(
                json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            ),
            container(json!({"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]})),
            spec(
                json!({"containers": [], "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s"}}]}]}),
            ),
            spec(json!({"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "s"}}]})),
            spec(
                json!({"containers": [], "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]}),
            ),
            spec(json!({"containers": [], "imagePullSecrets": [{"name": "s"}]})),
        ] {
            assert!(references(&pod, Referenced::Secret, "s"), "{pod:?}");
            assert!(!references(&pod, Referenced::Secret, "t"));
            assert!(!references(&pod, Referenced::ConfigMap, "s"));
        }
        let config = container(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}]}));
        assert!(references(&config, Referenced::ConfigMap, "m"));
        let projected = spec(
            json!({"containers": [], "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "m"}}]}}]}),
        );
        assert!(references(&projected, Referenced::ConfigMap, "m"));
    }
}
