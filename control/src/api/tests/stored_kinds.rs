//! One good object of each kind that is stored and checked: it is taken strictly, read back, shown as a row, kept by a
//! write that changes nothing, and deleted.

use serde_json::{Value, json};

use super::Server;

/// Path of the list, and an object.
fn samples() -> Vec<(&'static str, Value)> {
    let rule = json!({"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["*/*"]});
    let hook = json!({"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "a", "name": "b", "path": "/check"}, "caBundle": "AAAA"},
        "rules": [rule], "matchConditions": [{"name": "m", "expression": "true"}]});
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"]}]);
    let role_ref = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "x"});
    let subjects = json!([{"kind": "ServiceAccount", "name": "ci", "namespace": "default"}]);
    let devices = json!({"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu", "adminAccess": false,
        "selectors": [{"cel": {"expression": "true"}}]}}],
        "constraints": [{"requests": ["gpu"], "matchAttribute": "gpu.example.com/model"}],
        "config": [{"opaque": {"driver": "gpu.example.com", "parameters": {"x": 1}}}]});
    vec![
        (
            "networking.k8s.io/v1/namespaces/default/ingresses",
            json!({"kind": "Ingress", "spec": {"ingressClassName": "c", "tls": [{"hosts": ["a.b"], "secretName": "s"}],
                "rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}),
        ),
        (
            "networking.k8s.io/v1/ingressclasses",
            json!({"kind": "IngressClass", "spec": {"controller": "example.com/c",
                "parameters": {"apiGroup": "a.io", "kind": "P", "name": "p", "scope": "Namespace", "namespace": "n"}}}),
        ),
        (
            "networking.k8s.io/v1/namespaces/default/networkpolicies",
            json!({"kind": "NetworkPolicy", "spec": {"podSelector": {"matchLabels": {"a": "b"}},
                "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                    "ports": [{"port": 80, "endPort": 90}]}]}}),
        ),
        ("networking.k8s.io/v1/servicecidrs", json!({"kind": "ServiceCIDR", "spec": {"cidrs": ["10.200.0.0/24"]}})),
        ("rbac.authorization.k8s.io/v1/namespaces/default/roles", json!({"kind": "Role", "rules": rules})),
        (
            "rbac.authorization.k8s.io/v1/clusterroles",
            json!({"kind": "ClusterRole", "rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}],
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}),
        ),
        (
            "rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            json!({"kind": "RoleBinding", "roleRef": role_ref, "subjects": subjects}),
        ),
        (
            "rbac.authorization.k8s.io/v1/clusterrolebindings",
            json!({"kind": "ClusterRoleBinding", "roleRef": role_ref, "subjects": subjects}),
        ),
        (
            "storage.k8s.io/v1/storageclasses",
            json!({"kind": "StorageClass", "provisioner": "example.com/d", "allowVolumeExpansion": true,
                "parameters": {"a": "b"}, "mountOptions": ["ro"],
                "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]}),
        ),
        (
            "storage.k8s.io/v1/csidrivers",
            json!({"kind": "CSIDriver", "spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 600}],
                "serviceAccountTokenInSecrets": true, "nodeAllocatableUpdatePeriodSeconds": 60}}),
        ),
        (
            "storage.k8s.io/v1/csinodes",
            json!({"kind": "CSINode", "spec": {"drivers": [{"name": "csi.example.com", "nodeID": "n1",
                "topologyKeys": ["a.io/zone"], "allocatable": {"count": 5}}]}}),
        ),
        (
            "storage.k8s.io/v1/namespaces/default/csistoragecapacities",
            json!({"kind": "CSIStorageCapacity", "storageClassName": "fast", "capacity": "1Gi",
                "maximumVolumeSize": "1Gi", "nodeTopology": {"matchLabels": {"zone": "a"}}}),
        ),
        (
            "storage.k8s.io/v1/volumeattachments",
            json!({"kind": "VolumeAttachment", "spec": {"attacher": "csi.example.com", "nodeName": "n1",
                "source": {"persistentVolumeName": "pv"}}}),
        ),
        (
            "storage.k8s.io/v1/volumeattributesclasses",
            json!({"kind": "VolumeAttributesClass", "driverName": "csi.example.com", "parameters": {"iops": "1"}}),
        ),
        (
            "admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            json!({"kind": "MutatingWebhookConfiguration", "webhooks": [hook]}),
        ),
        (
            "admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
            json!({"kind": "ValidatingWebhookConfiguration", "webhooks": [hook]}),
        ),
        (
            "admissionregistration.k8s.io/v1/validatingadmissionpolicies",
            json!({"kind": "ValidatingAdmissionPolicy", "spec": {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
                "matchConstraints": {"resourceRules": [rule]}, "variables": [{"name": "a", "expression": "1"}],
                "validations": [{"expression": "true", "message": "m", "reason": "Forbidden"}],
                "auditAnnotations": [{"key": "k", "valueExpression": "'v'"}]}}),
        ),
        (
            "admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
            json!({"kind": "ValidatingAdmissionPolicyBinding", "spec": {"policyName": "p.example.com",
                "paramRef": {"name": "c", "namespace": "default", "parameterNotFoundAction": "Deny"},
                "matchResources": {"namespaceSelector": {}}, "validationActions": ["Deny"]}}),
        ),
        (
            "apiregistration.k8s.io/v1/apiservices",
            json!({"kind": "APIService", "metadata": {"name": "v1.a.io"}, "spec": {"group": "a.io", "version": "v1",
                "groupPriorityMinimum": 100, "versionPriority": 10, "insecureSkipTLSVerify": true,
                "service": {"namespace": "default", "name": "a"}}}),
        ),
        (
            "flowcontrol.apiserver.k8s.io/v1/flowschemas",
            json!({"kind": "FlowSchema", "spec": {"priorityLevelConfiguration": {"name": "exempt"},
                "distinguisherMethod": {"type": "ByUser"}, "rules": [{"subjects": [{"kind": "Group",
                    "group": {"name": "g"}}], "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}]}]}}),
        ),
        (
            "flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            json!({"kind": "PriorityLevelConfiguration", "spec": {"type": "Limited", "limited": {
                "limitResponse": {"type": "Queue", "queuing": {}}, "borrowingLimitPercent": 10}}}),
        ),
        (
            "resource.k8s.io/v1/deviceclasses",
            json!({"kind": "DeviceClass", "spec": {"selectors": [{"cel": {"expression": "true"}}]}}),
        ),
        (
            "resource.k8s.io/v1/namespaces/default/resourceclaims",
            json!({"kind": "ResourceClaim", "spec": {"devices": devices}}),
        ),
        (
            "resource.k8s.io/v1/namespaces/default/resourceclaimtemplates",
            json!({"kind": "ResourceClaimTemplate", "spec": {"metadata": {"labels": {"a": "b"}},
                "spec": {"devices": devices}}}),
        ),
        (
            "resource.k8s.io/v1/resourceslices",
            json!({"kind": "ResourceSlice", "spec": {"driver": "gpu.example.com", "nodeName": "n1",
                "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "d0",
                    "attributes": {"gpu.example.com/model": {"string": "a"}, "v": {"version": "1.0.0"}},
                    "capacity": {"memory": {"value": "8Gi"}}}]}}),
        ),
    ]
}

#[tokio::test]
async fn a_good_object_of_each_kind_is_stored_and_shown() {
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let server = Server::start().await;
    for (path, mut object) in samples() {
        let list = format!("/apis/{path}");
        let mut parts = path.split('/');
        let (group, version) = (parts.next().unwrap(), parts.next().unwrap());
        object["apiVersion"] = json!(format!("{group}/{version}"));
        if object["metadata"].is_null() {
            object["metadata"] = json!({"name": "sample"});
        }
        let created = server.post(&format!("{list}?fieldValidation=Strict"), object).await;
        assert_eq!(created.code, 201, "{list}: {}", created.json);
        let one = format!("{list}/{}", created.name());
        let again = server.put(&one, created.json.clone()).await;
        assert_eq!(again.code, 200, "{list}: {}", again.json);
        assert_eq!(again.json, created.json, "{list}: a write that changes nothing changes nothing");
        let table = server.get_as(&list, TABLE).await;
        let columns = table.json["columnDefinitions"].as_array().unwrap();
        for (column, cell) in columns.iter().zip(table.json["rows"][0]["cells"].as_array().unwrap()) {
            let fits = match column["type"].as_str().unwrap() {
                "integer" => cell.is_i64(),
                "boolean" => cell.is_boolean(),
                // Kubernetes has other types in some columns of texts.
                _ => cell.is_string() || cell.is_i64() || cell.is_boolean(),
            };
            assert!(fits, "{list}: {column} {cell}");
        }
        let deleted = server.delete(&one, json!({})).await;
        assert_eq!(deleted.code, 200, "{list}: {}", deleted.json);
    }
}

#[tokio::test]
async fn only_status_is_written_through_status() {
    let server = Server::start().await;
    let list = "/apis/storage.k8s.io/v1/volumeattachments";
    let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "a"},
        "spec": {"attacher": "csi.example.com", "nodeName": "n1", "source": {"persistentVolumeName": "pv"}},
        "status": {"attached": true}});
    let created = server.post(list, attachment).await;
    assert_eq!((created.code, &created.json["status"]), (201, &json!({"attached": false})), "{}", created.json);
    let mut attached = created.json.clone();
    attached["status"] = json!({"attached": true});
    attached["spec"]["nodeName"] = json!("n2");
    let updated = server.put(&format!("{list}/a/status"), attached).await;
    assert_eq!((updated.code, &updated.json["status"]["attached"]), (200, &json!(true)));
    assert_eq!(updated.json["spec"]["nodeName"], "n1");
    let moved = server.merge(&format!("{list}/a"), json!({"spec": {"nodeName": "n2"}})).await;
    assert_eq!(moved.reason(), (422, "Invalid"));
}
