//! What Kubernetes 1.35 says in discovery of each of its kinds, beside what is served here.

use super::*;

/// Verbs of a kind whose objects are stored.
const ALL: &str = "create delete deletecollection get list patch update watch";

/// Of a kind: its name, plural, short names and categories, whether it is namespaced, and its verbs.
type Row = (&'static str, &'static str, &'static [&'static str], &'static [&'static str], bool, &'static str);

/// Group and version with their kinds. Subresources are compared where the API answers them.
const KINDS: &[(&str, &[Row])] = &[
    (
        "v1",
        &[
            ("Binding", "bindings", &[], &[], true, "create"),
            ("ComponentStatus", "componentstatuses", &["cs"], &[], false, "get list"),
            ("ConfigMap", "configmaps", &["cm"], &[], true, ALL),
            ("Endpoints", "endpoints", &["ep"], &[], true, ALL),
            ("Event", "events", &["ev"], &[], true, ALL),
            ("LimitRange", "limitranges", &["limits"], &[], true, ALL),
            ("Namespace", "namespaces", &["ns"], &[], false, "create delete get list patch update watch"),
            ("Node", "nodes", &["no"], &[], false, ALL),
            ("PersistentVolumeClaim", "persistentvolumeclaims", &["pvc"], &[], true, ALL),
            ("PersistentVolume", "persistentvolumes", &["pv"], &[], false, ALL),
            ("Pod", "pods", &["po"], &["all"], true, ALL),
            ("PodTemplate", "podtemplates", &[], &[], true, ALL),
            ("ReplicationController", "replicationcontrollers", &["rc"], &["all"], true, ALL),
            ("ResourceQuota", "resourcequotas", &["quota"], &[], true, ALL),
            ("Secret", "secrets", &[], &[], true, ALL),
            ("ServiceAccount", "serviceaccounts", &["sa"], &[], true, ALL),
            ("Service", "services", &["svc"], &["all"], true, ALL),
        ],
    ),
    (
        "admissionregistration.k8s.io/v1",
        &[
            ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", &[], &["api-extensions"], false, ALL),
            ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", &[], &["api-extensions"], false, ALL),
            (
                "ValidatingAdmissionPolicyBinding",
                "validatingadmissionpolicybindings",
                &[],
                &["api-extensions"],
                false,
                ALL,
            ),
            ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", &[], &["api-extensions"], false, ALL),
        ],
    ),
    (
        "apiextensions.k8s.io/v1",
        &[("CustomResourceDefinition", "customresourcedefinitions", &["crd", "crds"], &["api-extensions"], false, ALL)],
    ),
    ("apiregistration.k8s.io/v1", &[("APIService", "apiservices", &[], &["api-extensions"], false, ALL)]),
    (
        "apps/v1",
        &[
            ("ControllerRevision", "controllerrevisions", &[], &[], true, ALL),
            ("DaemonSet", "daemonsets", &["ds"], &["all"], true, ALL),
            ("Deployment", "deployments", &["deploy"], &["all"], true, ALL),
            ("ReplicaSet", "replicasets", &["rs"], &["all"], true, ALL),
            ("StatefulSet", "statefulsets", &["sts"], &["all"], true, ALL),
        ],
    ),
    (
        "authentication.k8s.io/v1",
        &[
            ("SelfSubjectReview", "selfsubjectreviews", &[], &[], false, "create"),
            ("TokenReview", "tokenreviews", &[], &[], false, "create"),
        ],
    ),
    (
        "authorization.k8s.io/v1",
        &[
            ("LocalSubjectAccessReview", "localsubjectaccessreviews", &[], &[], true, "create"),
            ("SelfSubjectAccessReview", "selfsubjectaccessreviews", &[], &[], false, "create"),
            ("SelfSubjectRulesReview", "selfsubjectrulesreviews", &[], &[], false, "create"),
            ("SubjectAccessReview", "subjectaccessreviews", &[], &[], false, "create"),
        ],
    ),
    ("autoscaling/v2", &[("HorizontalPodAutoscaler", "horizontalpodautoscalers", &["hpa"], &["all"], true, ALL)]),
    ("autoscaling/v1", &[("HorizontalPodAutoscaler", "horizontalpodautoscalers", &["hpa"], &["all"], true, ALL)]),
    ("batch/v1", &[("CronJob", "cronjobs", &["cj"], &["all"], true, ALL), ("Job", "jobs", &[], &["all"], true, ALL)]),
    (
        "certificates.k8s.io/v1",
        &[("CertificateSigningRequest", "certificatesigningrequests", &["csr"], &[], false, ALL)],
    ),
    ("coordination.k8s.io/v1", &[("Lease", "leases", &[], &[], true, ALL)]),
    ("discovery.k8s.io/v1", &[("EndpointSlice", "endpointslices", &[], &[], true, ALL)]),
    ("events.k8s.io/v1", &[("Event", "events", &["ev"], &[], true, ALL)]),
    (
        "flowcontrol.apiserver.k8s.io/v1",
        &[
            ("FlowSchema", "flowschemas", &[], &[], false, ALL),
            ("PriorityLevelConfiguration", "prioritylevelconfigurations", &[], &[], false, ALL),
        ],
    ),
    (
        "networking.k8s.io/v1",
        &[
            ("IPAddress", "ipaddresses", &["ip"], &[], false, ALL),
            ("Ingress", "ingresses", &["ing"], &[], true, ALL),
            ("IngressClass", "ingressclasses", &[], &[], false, ALL),
            ("NetworkPolicy", "networkpolicies", &["netpol"], &[], true, ALL),
            ("ServiceCIDR", "servicecidrs", &[], &[], false, ALL),
        ],
    ),
    ("node.k8s.io/v1", &[("RuntimeClass", "runtimeclasses", &[], &[], false, ALL)]),
    ("policy/v1", &[("PodDisruptionBudget", "poddisruptionbudgets", &["pdb"], &[], true, ALL)]),
    (
        "rbac.authorization.k8s.io/v1",
        &[
            ("ClusterRole", "clusterroles", &[], &[], false, ALL),
            ("ClusterRoleBinding", "clusterrolebindings", &[], &[], false, ALL),
            ("Role", "roles", &[], &[], true, ALL),
            ("RoleBinding", "rolebindings", &[], &[], true, ALL),
        ],
    ),
    (
        "resource.k8s.io/v1",
        &[
            ("DeviceClass", "deviceclasses", &[], &[], false, ALL),
            ("ResourceClaim", "resourceclaims", &[], &[], true, ALL),
            ("ResourceClaimTemplate", "resourceclaimtemplates", &[], &[], true, ALL),
            ("ResourceSlice", "resourceslices", &[], &[], false, ALL),
        ],
    ),
    ("scheduling.k8s.io/v1", &[("PriorityClass", "priorityclasses", &["pc"], &[], false, ALL)]),
    (
        "storage.k8s.io/v1",
        &[
            ("CSIDriver", "csidrivers", &[], &[], false, ALL),
            ("CSINode", "csinodes", &[], &[], false, ALL),
            ("CSIStorageCapacity", "csistoragecapacities", &[], &[], true, ALL),
            ("StorageClass", "storageclasses", &["sc"], &[], false, ALL),
            ("VolumeAttachment", "volumeattachments", &[], &[], false, ALL),
            ("VolumeAttributesClass", "volumeattributesclasses", &["vac"], &[], false, ALL),
        ],
    ),
];

/// Superseded versions, which Kubernetes 1.35 serves no more.
fn is_superseded(kind: &Kind) -> bool {
    matches!(&kind.storage, Storage::As(stored) if stored.deprecation.is_some())
}

#[test]
fn every_kind_is_in_discovery_as_in_kubernetes() {
    for kind in Kinds::built_in().iter().filter(|kind| !is_superseded(kind)) {
        let rows = KINDS.iter().find(|(version, _)| *version == kind.api_version()).map(|(_, rows)| *rows);
        let row = rows.unwrap_or_default().iter().find(|row| row.0 == kind.kind);
        let Some((_, plural, short_names, categories, namespaced, verbs)) = row else {
            panic!("Kubernetes has no {kind:?}");
        };
        assert_eq!(kind.plural, *plural);
        assert_eq!(kind.singular, kind.kind.to_lowercase());
        assert_eq!(kind.short_names, *short_names, "{kind:?}");
        assert_eq!(kind.categories, *categories, "{kind:?}");
        assert_eq!(kind.namespaced, *namespaced, "{kind:?}");
        assert_eq!(kind.verbs().join(" "), *verbs, "{kind:?}");
    }
}

#[test]
fn every_kind_of_the_groups_of_workloads_is_served() {
    let kinds = Kinds::built_in();
    let groups = [
        "apps/v1",
        "autoscaling/v1",
        "autoscaling/v2",
        "batch/v1",
        "node.k8s.io/v1",
        "policy/v1",
        "scheduling.k8s.io/v1",
        "v1",
    ];
    for (version, rows) in KINDS.iter().filter(|(version, _)| groups.contains(version)) {
        for (kind, ..) in *rows {
            assert!(kinds.by_api_version(version, kind).is_some(), "{version} {kind}");
        }
    }
}
