//! How lists and maps merge, field by field: the one table behind strategic merge patches and the `x-kubernetes-*` extensions of
//! the OpenAPI documents.
//!
//! The schemas of k8s-openapi lack these facts. Source: the struct tags of the Kubernetes API types, as its published OpenAPI
//! shows them.

use serde_json::{Map, Value, json};

/// How one field merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merging {
    pub field: &'static str,
    pub list: Option<List>,
    /// Strategic merge: items with an equal value here are one item. Primitive lists that merge have an empty key.
    pub merge_key: Option<&'static str>,
    /// Strategic merge: a patch may say which keys of the old value stay (`$retainKeys`).
    pub retain_keys: bool,
    /// The map is replaced as a whole by server-side apply.
    pub atomic_map: bool,
}

/// `x-kubernetes-list-type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Atomic,
    Set,
    Map(&'static [&'static str]),
}

impl Merging {
    /// The field's extensions in an OpenAPI schema.
    pub fn extensions(&self) -> Map<String, Value> {
        let mut out = Map::new();
        match self.list {
            Some(List::Atomic) => {
                out.insert("x-kubernetes-list-type".into(), json!("atomic"));
            }
            Some(List::Set) => {
                out.insert("x-kubernetes-list-type".into(), json!("set"));
            }
            Some(List::Map(keys)) => {
                out.insert("x-kubernetes-list-map-keys".into(), json!(keys));
                out.insert("x-kubernetes-list-type".into(), json!("map"));
            }
            None => {}
        }
        if self.atomic_map {
            out.insert("x-kubernetes-map-type".into(), json!("atomic"));
        }
        if let Some(key) = self.merge_key.filter(|k| !k.is_empty()) {
            out.insert("x-kubernetes-patch-merge-key".into(), json!(key));
        }
        let strategy = match (self.merge_key.is_some(), self.retain_keys) {
            (true, true) => "merge,retainKeys",
            (true, false) => "merge",
            (false, true) => "retainKeys",
            (false, false) => return out,
        };
        out.insert("x-kubernetes-patch-strategy".into(), json!(strategy));
        out
    }
}

/// How `field` of `definition` (`io.k8s.api.core.v1.PodSpec`) merges, where it is special at all.
pub fn of(definition: &str, field: &str) -> Option<&'static Merging> {
    let short = short(definition)?;
    let at = FIELDS.binary_search_by(|(name, _)| (*name).cmp(short)).ok()?;
    FIELDS[at].1.iter().find(|merging| merging.field == field)
}

/// Whether all of a definition is replaced as one by server-side apply.
pub fn is_atomic(definition: &str) -> bool {
    short(definition).is_some_and(|short| ATOMIC_DEFINITIONS.contains(&short))
}

fn short(definition: &str) -> Option<&str> {
    definition.strip_prefix("io.k8s.api.").or_else(|| definition.strip_prefix("io.k8s.apimachinery.pkg.apis."))
}

const PLAIN: Merging = Merging { field: "", list: None, merge_key: None, retain_keys: false, atomic_map: false };

const fn atomic(field: &'static str) -> Merging {
    Merging { field, list: Some(List::Atomic), ..PLAIN }
}

const fn atomic_merged(field: &'static str, key: &'static str) -> Merging {
    Merging { field, list: Some(List::Atomic), merge_key: Some(key), ..PLAIN }
}

const fn atomic_map(field: &'static str) -> Merging {
    Merging { field, atomic_map: true, ..PLAIN }
}

const fn map(field: &'static str, keys: &'static [&'static str]) -> Merging {
    Merging { field, list: Some(List::Map(keys)), merge_key: Some(keys[0]), ..PLAIN }
}

const fn map_retain(field: &'static str, keys: &'static [&'static str]) -> Merging {
    Merging { retain_keys: true, ..map(field, keys) }
}

/// Merged by server-side apply, replaced by a strategic merge patch.
const fn map_replaced(field: &'static str, keys: &'static [&'static str]) -> Merging {
    Merging { field, list: Some(List::Map(keys)), ..PLAIN }
}

const fn set(field: &'static str) -> Merging {
    Merging { field, list: Some(List::Set), ..PLAIN }
}

const fn set_merged(field: &'static str) -> Merging {
    Merging { field, list: Some(List::Set), merge_key: Some(""), ..PLAIN }
}

const fn retain(field: &'static str) -> Merging {
    Merging { field, retain_keys: true, ..PLAIN }
}

/// Sorted by definition.
const FIELDS: &[(&str, &[Merging])] = &[
    ("apps.v1.DeploymentSpec", &[retain("strategy")]),
    ("apps.v1.DeploymentStatus", &[map("conditions", &["type"])]),
    ("apps.v1.ReplicaSetStatus", &[map("conditions", &["type"])]),
    ("authentication.v1.UserInfo", &[atomic("groups")]),
    ("authorization.v1.FieldSelectorAttributes", &[atomic("requirements")]),
    ("authorization.v1.LabelSelectorAttributes", &[atomic("requirements")]),
    ("certificates.v1.CertificateSigningRequestSpec", &[atomic("groups"), atomic("usages")]),
    ("certificates.v1.CertificateSigningRequestStatus", &[map_replaced("conditions", &["type"])]),
    ("core.v1.Capabilities", &[atomic("add"), atomic("drop")]),
    ("core.v1.CephFSVolumeSource", &[atomic("monitors")]),
    ("core.v1.ConfigMapProjection", &[atomic("items")]),
    ("core.v1.ConfigMapVolumeSource", &[atomic("items")]),
    (
        "core.v1.Container",
        &[
            atomic("args"),
            atomic("command"),
            map("env", &["name"]),
            atomic("envFrom"),
            map("ports", &["containerPort", "protocol"]),
            atomic("resizePolicy"),
            atomic("restartPolicyRules"),
            map("volumeDevices", &["devicePath"]),
            map("volumeMounts", &["mountPath"]),
        ],
    ),
    ("core.v1.ContainerImage", &[atomic("names")]),
    ("core.v1.ContainerRestartRuleOnExitCodes", &[set("values")]),
    ("core.v1.ContainerStatus", &[map("allocatedResourcesStatus", &["name"]), map("volumeMounts", &["mountPath"])]),
    ("core.v1.DownwardAPIProjection", &[atomic("items")]),
    ("core.v1.DownwardAPIVolumeSource", &[atomic("items")]),
    ("core.v1.EndpointSubset", &[atomic("addresses"), atomic("notReadyAddresses"), atomic("ports")]),
    ("core.v1.Endpoints", &[atomic("subsets")]),
    (
        "core.v1.EphemeralContainer",
        &[
            atomic("args"),
            atomic("command"),
            map("env", &["name"]),
            atomic("envFrom"),
            map("ports", &["containerPort", "protocol"]),
            atomic("resizePolicy"),
            atomic("restartPolicyRules"),
            map("volumeDevices", &["devicePath"]),
            map("volumeMounts", &["mountPath"]),
        ],
    ),
    ("core.v1.ExecAction", &[atomic("command")]),
    ("core.v1.FCVolumeSource", &[atomic("targetWWNs"), atomic("wwids")]),
    ("core.v1.HTTPGetAction", &[atomic("httpHeaders")]),
    ("core.v1.HostAlias", &[atomic("hostnames")]),
    ("core.v1.ISCSIVolumeSource", &[atomic("portals")]),
    ("core.v1.LinuxContainerUser", &[atomic("supplementalGroups")]),
    ("core.v1.LoadBalancerIngress", &[atomic("ports")]),
    ("core.v1.LoadBalancerStatus", &[atomic("ingress")]),
    ("core.v1.NamespaceSpec", &[atomic("finalizers")]),
    ("core.v1.NamespaceStatus", &[map("conditions", &["type"])]),
    ("core.v1.NodeAffinity", &[atomic("preferredDuringSchedulingIgnoredDuringExecution")]),
    ("core.v1.NodeSelector", &[atomic("nodeSelectorTerms")]),
    ("core.v1.NodeSelectorRequirement", &[atomic("values")]),
    ("core.v1.NodeSelectorTerm", &[atomic("matchExpressions"), atomic("matchFields")]),
    ("core.v1.NodeSpec", &[set_merged("podCIDRs"), atomic("taints")]),
    (
        "core.v1.NodeStatus",
        &[
            map("addresses", &["type"]),
            map("conditions", &["type"]),
            atomic("declaredFeatures"),
            atomic("images"),
            atomic("runtimeHandlers"),
            atomic("volumesAttached"),
            atomic("volumesInUse"),
        ],
    ),
    ("core.v1.PersistentVolumeClaimSpec", &[atomic("accessModes")]),
    (
        "core.v1.PodAffinity",
        &[
            atomic("preferredDuringSchedulingIgnoredDuringExecution"),
            atomic("requiredDuringSchedulingIgnoredDuringExecution"),
        ],
    ),
    ("core.v1.PodAffinityTerm", &[atomic("matchLabelKeys"), atomic("mismatchLabelKeys"), atomic("namespaces")]),
    (
        "core.v1.PodAntiAffinity",
        &[
            atomic("preferredDuringSchedulingIgnoredDuringExecution"),
            atomic("requiredDuringSchedulingIgnoredDuringExecution"),
        ],
    ),
    ("core.v1.PodDNSConfig", &[atomic("nameservers"), atomic("options"), atomic("searches")]),
    ("core.v1.PodExtendedResourceClaimStatus", &[atomic("requestMappings")]),
    ("core.v1.PodSecurityContext", &[atomic("supplementalGroups"), atomic("sysctls")]),
    (
        "core.v1.PodSpec",
        &[
            map("containers", &["name"]),
            map("ephemeralContainers", &["name"]),
            map("hostAliases", &["ip"]),
            map("imagePullSecrets", &["name"]),
            map("initContainers", &["name"]),
            atomic_map("nodeSelector"),
            atomic("readinessGates"),
            map_retain("resourceClaims", &["name"]),
            map("schedulingGates", &["name"]),
            atomic("tolerations"),
            map("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
            map_retain("volumes", &["name"]),
        ],
    ),
    (
        "core.v1.PodStatus",
        &[
            map("conditions", &["type"]),
            atomic("containerStatuses"),
            atomic("ephemeralContainerStatuses"),
            atomic_merged("hostIPs", "ip"),
            atomic("initContainerStatuses"),
            map("podIPs", &["ip"]),
            map_retain("resourceClaimStatuses", &["name"]),
        ],
    ),
    ("core.v1.ProjectedVolumeSource", &[atomic("sources")]),
    ("core.v1.RBDVolumeSource", &[atomic("monitors")]),
    ("core.v1.ResourceRequirements", &[map_replaced("claims", &["name"])]),
    ("core.v1.ResourceStatus", &[map_replaced("resources", &["resourceID"])]),
    ("core.v1.SecretProjection", &[atomic("items")]),
    ("core.v1.SecretVolumeSource", &[atomic("items")]),
    ("core.v1.ServiceAccount", &[atomic("imagePullSecrets"), map("secrets", &["name"])]),
    (
        "core.v1.ServiceSpec",
        &[
            atomic("clusterIPs"),
            atomic("externalIPs"),
            atomic("ipFamilies"),
            atomic("loadBalancerSourceRanges"),
            map("ports", &["port", "protocol"]),
            atomic_map("selector"),
        ],
    ),
    ("core.v1.ServiceStatus", &[map("conditions", &["type"])]),
    ("core.v1.TopologySpreadConstraint", &[atomic("matchLabelKeys")]),
    ("discovery.v1.Endpoint", &[set("addresses")]),
    ("discovery.v1.EndpointHints", &[atomic("forNodes"), atomic("forZones")]),
    ("discovery.v1.EndpointSlice", &[atomic("endpoints"), atomic("ports")]),
    ("meta.v1.FieldSelectorRequirement", &[atomic("values")]),
    ("meta.v1.LabelSelector", &[atomic("matchExpressions")]),
    ("meta.v1.LabelSelectorRequirement", &[atomic("values")]),
    ("meta.v1.ObjectMeta", &[set_merged("finalizers"), atomic("managedFields"), map("ownerReferences", &["uid"])]),
];

const ATOMIC_DEFINITIONS: &[&str] = &[
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.SecretKeySelector",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "meta.v1.LabelSelector",
    "meta.v1.OwnerReference",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(FIELDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(of("io.k8s.api.core.v1.PodSpec", "containers").unwrap().merge_key, Some("name"));
        assert!(of("io.k8s.api.core.v1.PodSpec", "nodeName").is_none());
    }

    #[test]
    fn extensions_are_spelled_as_kubernetes_publishes_them() {
        let ports = of("io.k8s.api.core.v1.ServiceSpec", "ports").unwrap().extensions();
        assert_eq!(
            Value::Object(ports),
            json!({"x-kubernetes-list-map-keys": ["port", "protocol"], "x-kubernetes-list-type": "map",
                "x-kubernetes-patch-merge-key": "port", "x-kubernetes-patch-strategy": "merge"})
        );
        let volumes = of("io.k8s.api.core.v1.PodSpec", "volumes").unwrap().extensions();
        assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    }
}
