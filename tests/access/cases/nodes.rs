//! A node reaches for what is another's: Nodes, Leases, pods, Secrets, claims, labels, mirror pods, tokens.

use serde_json::{Value, json};

use super::{Act, Acts, Who, certificates, keep, prepare, roles::dry};
use crate::{exchange::Request, kit::Result, objects, servers::Actor};

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/team-a/pods";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const CSI_NODES: &str = "/apis/storage.k8s.io/v1/csinodes";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// The node n1 asks.
fn n1(request: Request) -> Act {
    Act::Ask { actor: Who::Known(Actor::node("n1")), request }
}

pub fn acts() -> Result<Acts> {
    let mut acts = vec![
        keep("n1", Request::patch(format!("{NODES}/n1"), json!({"metadata": {"labels": {"own": "a"}}}))),
        keep("n2", Request::patch(format!("{NODES}/n2"), json!({"metadata": {"labels": {"own": "a"}}}))),
        keep("p1", Request::patch(format!("{PODS}/of-n1"), json!({"metadata": {"labels": {"own": "a"}}}))),
        keep("p2", Request::patch(format!("{PODS}/of-n2"), json!({"metadata": {"labels": {"own": "a"}}}))),
    ];
    acts.extend(reads());
    acts.extend(own_object());
    acts.extend(pods());
    acts.extend(mirror_pods());
    acts.extend(tokens());
    acts.extend(others()?);
    Ok(acts)
}

fn reads() -> Acts {
    let mut acts = Acts::new();
    for of in ["of-n1", "of-n2", "of-none", "missing"] {
        for plural in ["pods", "secrets", "configmaps", "persistentvolumeclaims", "serviceaccounts", "endpoints"] {
            acts.push(n1(Request::get(format!("/api/v1/namespaces/team-a/{plural}/{of}"))));
            let one = format!("/api/v1/namespaces/team-a/{plural}?fieldSelector=metadata.name%3D{of}");
            acts.push(n1(Request::get(one.clone())));
            acts.push(n1(Request::get(format!("{one}&watch=1&timeoutSeconds=1"))));
        }
        acts.push(n1(Request::get(format!("/api/v1/namespaces/team-a/secrets/volume-{of}"))));
        acts.push(n1(Request::get(format!("/api/v1/persistentvolumes/{of}"))));
        acts.push(n1(Request::get(format!("/apis/storage.k8s.io/v1/volumeattachments/{of}"))));
        acts.push(n1(Request::get(format!("/api/v1/namespaces/team-b/secrets/{of}"))));
        acts.push(n1(Request::get(format!("{PODS}/{of}/log"))));
        acts.push(n1(Request::get(format!("{PODS}/{of}/status"))));
        acts.push(n1(Request::new("POST", format!("{PODS}/{of}/exec?command=id"))));
    }
    for path in [
        "/api/v1/pods",
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1",
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2",
        "/api/v1/pods?fieldSelector=spec.nodeName!%3Dn1",
        "/api/v1/secrets",
        "/api/v1/namespaces/team-a/secrets",
        "/api/v1/configmaps",
        "/api/v1/nodes",
        "/api/v1/nodes/n1",
        "/api/v1/nodes/n2",
        "/api/v1/nodes/missing",
        "/api/v1/nodes?fieldSelector=metadata.name%3Dn1",
        "/api/v1/nodes?fieldSelector=metadata.name%3Dn2",
        "/api/v1/services",
        "/api/v1/namespaces",
        "/api/v1/namespaces/team-a",
        "/api/v1/endpoints",
        "/api/v1/events",
        "/apis/discovery.k8s.io/v1/endpointslices",
        "/apis/storage.k8s.io/v1/csidrivers",
        "/apis/storage.k8s.io/v1/csinodes",
        "/apis/storage.k8s.io/v1/storageclasses",
        "/apis/node.k8s.io/v1/runtimeclasses",
        "/apis/scheduling.k8s.io/v1/priorityclasses",
        "/apis/apps/v1/deployments",
        "/apis/resource.k8s.io/v1/resourceslices",
        "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dn1",
        "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dn2",
        "/apis/resource.k8s.io/v1/namespaces/team-a/resourceclaims",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    ] {
        acts.push(n1(Request::get(path)));
    }
    for name in ["n1", "n2", "missing"] {
        acts.push(n1(Request::get(format!("{LEASES}/{name}"))));
        acts.push(n1(Request::get(format!("{CSI_NODES}/{name}"))));
        acts.push(n1(Request::get(format!("/api/v1/nodes/{name}/proxy/pods"))));
        acts.push(n1(Request::get(format!("/api/v1/nodes/{name}/status"))));
    }
    acts.push(n1(Request::get(LEASES)));
    acts.push(n1(Request::get("/apis/coordination.k8s.io/v1/namespaces/team-a/leases/n1")));
    acts
}

/// Writes of Nodes, Leases and CSINodes.
fn own_object() -> Acts {
    let mut acts = Acts::new();
    for name in ["n1", "n2", "n3"] {
        acts.push(n1(dry(Request::post(NODES, json!({"metadata": {"name": name}})))));
        acts.push(n1(dry(Request::delete(format!("{NODES}/{name}")))));
        acts.push(n1(dry(Request::post(LEASES, json!({"metadata": {"name": name}, "spec": {}})))));
        acts.push(n1(dry(Request::post(CSI_NODES, json!({"metadata": {"name": name}, "spec": {"drivers": []}})))));
        for (path, patch) in [
            (format!("{NODES}/{name}"), json!({"metadata": {"labels": {"own": "b"}}})),
            (format!("{NODES}/{name}"), json!({"spec": {"unschedulable": true}})),
            (format!("{NODES}/{name}"), json!({"spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}})),
            (format!("{NODES}/{name}"), json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})),
            (format!("{NODES}/{name}"), json!({"metadata": {"annotations": {"a": "b"}}})),
            (
                format!("{NODES}/{name}"),
                json!({"metadata": {"ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]}}),
            ),
            (
                format!("{NODES}/{name}/status"),
                json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            ),
            (format!("{NODES}/{name}/status"), json!({"metadata": {"labels": {"kubernetes.io/x": "b"}}})),
            (format!("{NODES}/{name}/status"), json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})),
            (format!("{LEASES}/{name}"), json!({"spec": {"holderIdentity": "n1"}})),
            (format!("{CSI_NODES}/{name}"), json!({"metadata": {"annotations": {"a": "b"}}})),
        ] {
            acts.push(n1(dry(Request::patch(path, patch))));
        }
        acts.push(n1(dry(Request::delete(format!("{LEASES}/{name}")))));
        acts.push(n1(dry(Request::delete(format!("{CSI_NODES}/{name}")))));
    }
    acts.push(n1(dry(Request::delete(LEASES))));
    acts.push(n1(dry(Request::post(
        "/apis/coordination.k8s.io/v1/namespaces/team-a/leases",
        json!({"metadata": {"name": "n1"}, "spec": {}}),
    ))));
    for label in [
        "own",
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/x",
        "kubelet.kubernetes.io/x",
        "node-restriction.kubernetes.io/x",
        "a.node-restriction.kubernetes.io/x",
        "k8s.io/x",
        "a.k8s.io/x",
        "node-role.kubernetes.io/control-plane",
        "kubernetes.io/x",
        "failure-domain.beta.kubernetes.io/zone",
    ] {
        let patch = json!({"metadata": {"labels": {label: "v"}}});
        acts.push(n1(dry(Request::patch(format!("{NODES}/n1"), patch.clone()))));
        acts.push(n1(dry(Request::patch(format!("{NODES}/n1/status"), patch))));
        let node = json!({"metadata": {"name": "n1", "labels": {label: "v"}}});
        acts.push(n1(dry(Request::post(NODES, node))));
    }
    let two = json!({"metadata": {"labels": {"k8s.io/b": "v", "k8s.io/a": "v"}}});
    acts.push(n1(dry(Request::patch(format!("{NODES}/n1"), two))));
    acts
}

fn pods() -> Acts {
    let mut acts = Acts::new();
    for of in ["of-n1", "of-n2", "of-none", "missing"] {
        let pod = format!("{PODS}/{of}");
        acts.push(n1(dry(Request::delete(pod.clone()))));
        acts.push(n1(dry(Request::patch(pod.clone(), json!({"metadata": {"labels": {"a": "b"}}})))));
        for patch in [
            json!({"status": {"phase": "Running"}}),
            json!({"metadata": {"labels": {"a": "b"}}}),
            json!({"status": {"resourceClaimStatuses": [{"name": "a", "resourceClaimName": "b"}]}}),
        ] {
            acts.push(n1(dry(Request::patch(format!("{pod}/status"), patch))));
        }
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": of}});
        acts.push(n1(dry(Request::post(format!("{pod}/eviction"), eviction))));
        let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "example.com/d"}]}});
        acts.push(n1(dry(Request::patch(format!("{pod}/ephemeralcontainers"), debug))));
        let bind = json!({"metadata": {"name": of}, "target": {"kind": "Node", "name": "n1"}});
        acts.push(n1(dry(Request::post(format!("{pod}/binding"), bind))));
        let claim = format!("/api/v1/namespaces/team-a/persistentvolumeclaims/{of}");
        acts.push(n1(dry(Request::patch(
            format!("{claim}/status"),
            json!({"status": {"capacity": {"storage": "2Gi"}}}),
        ))));
        acts.push(n1(dry(Request::patch(format!("{claim}/status"), json!({"metadata": {"labels": {"a": "b"}}})))));
        acts.push(n1(dry(Request::patch(claim, json!({"metadata": {"labels": {"a": "b"}}})))));
        let secret = format!("/api/v1/namespaces/team-a/secrets/{of}");
        acts.push(n1(dry(Request::patch(secret.clone(), json!({"data": {"a": ""}})))));
        acts.push(n1(dry(Request::delete(secret))));
    }
    acts.push(n1(dry(Request::delete(format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")))));
    acts
}

fn mirror_pods() -> Acts {
    let good = json!({"metadata": {"name": "mirror", "annotations": {"kubernetes.io/config.mirror": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "${n1.uid}", "controller": true}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "example.com/c"}]}});
    let edits: [fn(&mut Value); 25] = [
        |_| (),
        |pod| pod["metadata"]["annotations"] = json!({}),
        |pod| pod["spec"]["nodeName"] = "n2".into(),
        |pod| pod["spec"]["nodeName"] = Value::Null,
        |pod| pod["metadata"]["ownerReferences"] = json!([]),
        |pod| pod["metadata"]["ownerReferences"][0]["name"] = "n2".into(),
        |pod| pod["metadata"]["ownerReferences"][0]["uid"] = "${n2.uid}".into(),
        |pod| pod["metadata"]["ownerReferences"][0]["kind"] = "Pod".into(),
        |pod| pod["metadata"]["ownerReferences"][0]["controller"] = false.into(),
        |pod| pod["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = true.into(),
        |pod| {
            let other = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
            pod["metadata"]["ownerReferences"].as_array_mut().expect("is a list").push(other);
        },
        |pod| pod["spec"]["serviceAccountName"] = "robot".into(),
        |pod| pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "of-n2"}}]),
        |pod| pod["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": "of-n2"}}]),
        |pod| pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "of-n2"}}]),
        |pod| {
            pod["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": [{"secret": {"name": "of-n2"}}]}}])
        },
        |pod| {
            pod["spec"]["volumes"] =
                json!([{"name": "v", "projected": {"sources": [{"configMap": {"name": "of-n2"}}]}}])
        },
        |pod| {
            let token = json!([{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]);
            pod["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": token}}]);
        },
        |pod| {
            let template =
                json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
            pod["spec"]["volumes"] = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}]);
        },
        |pod| {
            let csi = json!({"driver": "example.com", "nodePublishSecretRef": {"name": "of-n2"}});
            pod["spec"]["volumes"] = json!([{"name": "v", "csi": csi}]);
        },
        |pod| pod["spec"]["imagePullSecrets"] = json!([{"name": "of-n2"}]),
        |pod| pod["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "of-n2"}}]),
        |pod| pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "of-n2"}}]),
        |pod| {
            let from = json!({"secretKeyRef": {"name": "of-n2", "key": "k"}});
            pod["spec"]["containers"][0]["env"] = json!([{"name": "A", "valueFrom": from}]);
        },
        |pod| pod["spec"]["resourceClaims"] = json!([{"name": "r", "resourceClaimName": "c"}]),
    ];
    let edited = edits.into_iter().map(|edit| {
        let mut pod = good.clone();
        edit(&mut pod);
        n1(dry(Request::post(PODS, pod)))
    });
    let plain = n1(dry(Request::post(PODS, objects::pod("of-n1", "n1"))));
    edited.chain([plain]).collect()
}

/// Tokens of accounts.
fn tokens() -> Acts {
    let mut acts = Acts::new();
    let bound = |name: &str, uid: &str| json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid});
    for account in ["of-n1", "of-n2", "of-none", "robot", "missing"] {
        for reference in [
            Value::Null,
            bound("of-n1", "${p1.uid}"),
            bound("of-n1", "${p2.uid}"),
            bound("of-n1", ""),
            bound("of-n2", "${p2.uid}"),
            bound("missing", "${p1.uid}"),
            json!({"kind": "Secret", "apiVersion": "v1", "name": "of-n1"}),
            json!({"kind": "Node", "apiVersion": "v1", "name": "n1", "uid": "${n1.uid}"}),
        ] {
            let path = format!("/api/v1/namespaces/team-a/serviceaccounts/{account}/token");
            acts.push(n1(Request::post(path, json!({"spec": {"boundObjectRef": reference}}))));
        }
        for audiences in [json!(["vault"]), json!(["a", "b"]), json!([""])] {
            let path = format!("/api/v1/namespaces/team-a/serviceaccounts/{account}/token");
            let spec = json!({"spec": {"boundObjectRef": bound("of-n1", "${p1.uid}"), "audiences": audiences}});
            acts.push(n1(Request::post(path, spec)));
        }
    }
    for path in ["serviceaccounts", "serviceaccounts/of-n1"] {
        acts.push(n1(Request::get(format!("/api/v1/namespaces/team-a/{path}"))));
    }
    acts.push(n1(dry(Request::post(
        "/api/v1/namespaces/team-a/serviceaccounts",
        json!({"metadata": {"name": "new"}}),
    ))));
    acts
}

/// Signing requests, reviews, slices, events.
fn others() -> Result<Acts> {
    let mut acts = Acts::new();
    for signer in [
        "kubernetes.io/kube-apiserver-client-kubelet",
        "kubernetes.io/kubelet-serving",
        "kubernetes.io/kube-apiserver-client",
    ] {
        for user in ["system:node:n1", "system:node:n2", "n1"] {
            let request = certificates::request("of-node", signer, user, &["system:nodes"])?;
            acts.push(n1(dry(Request::post(REQUESTS, request))));
        }
    }
    let own = certificates::request("of-admin", "kubernetes.io/kubelet-serving", "system:node:n1", &["system:nodes"])?;
    acts.push(prepare(Request::post(REQUESTS, own)));
    let approved =
        json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}});
    acts.push(n1(Request::get(format!("{REQUESTS}/of-admin"))));
    acts.push(n1(Request::get(format!("{REQUESTS}?fieldSelector=metadata.name%3Dof-admin"))));
    acts.push(n1(dry(Request::patch(format!("{REQUESTS}/of-admin/approval"), approved))));
    acts.push(n1(dry(Request::delete(format!("{REQUESTS}/of-admin")))));
    let attributes = json!({"spec": {"user": "joe", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    acts.push(n1(Request::post("/apis/authorization.k8s.io/v1/subjectaccessreviews", attributes)));
    acts.push(n1(Request::post("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": "x"}}))));
    acts.push(n1(Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({}))));
    let rules = Request::post(
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        json!({"spec": {"namespace": "team-a"}}),
    );
    acts.push(n1(rules));
    for node in ["n1", "n2"] {
        let slice = json!({"metadata": {"name": format!("slice-{node}")}, "spec": {"driver": "example.com", "nodeName": node,
            "pool": {"name": node, "resourceSliceCount": 1, "generation": 1}}});
        let slices = "/apis/resource.k8s.io/v1/resourceslices";
        acts.push(n1(dry(Request::post(slices, slice.clone()))));
        acts.push(prepare(Request::post(slices, slice)));
        let one = format!("{slices}/slice-{node}");
        acts.push(n1(Request::get(one.clone())));
        acts.push(n1(dry(Request::patch(one.clone(), json!({"metadata": {"labels": {"a": "b"}}})))));
        acts.push(n1(dry(Request::delete(one))));
        acts.push(n1(dry(Request::delete(format!("{slices}?fieldSelector=spec.nodeName%3D{node}")))));
    }
    acts.push(n1(dry(Request::delete("/apis/resource.k8s.io/v1/resourceslices"))));
    let event = json!({"metadata": {"name": "e", "namespace": "team-a"}, "involvedObject": {"kind": "Pod",
        "namespace": "team-a", "name": "of-n2"}, "reason": "R", "type": "Normal"});
    acts.push(n1(dry(Request::post("/api/v1/namespaces/team-a/events", event))));
    for path in ["/metrics", "/healthz", "/logs", "/version", "/openapi/v2?timeout=1s", "/debug/pprof"] {
        acts.push(n1(Request::get(path)));
    }
    acts.push(n1(Request::get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")));
    Ok(acts)
}
