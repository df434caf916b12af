//! How a list or map of a built-in kind is merged: the `patchStrategy` and `patchMergeKey` of Kubernetes' types. Pure
//! data.

/// What a patch does with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// A map is merged key by key; a list is replaced.
    Plain,
    /// A list of maps is merged by this key.
    MergeBy(&'static str),
    /// The same, and an element keeps only the keys that are applied (a volume changes its type).
    MergeByRetainingKeys(&'static str),
    /// A list of strings is merged as a set.
    MergeSet,
    /// A map that keeps only the keys that are applied (a Deployment's strategy changes its type).
    RetainKeys,
}

/// The strategy of the field at `path` (names of fields from the root, list elements left out) in objects of `kind`.
pub fn strategy(kind: &str, path: &[&str]) -> Strategy {
    let (Some(field), parent) = (path.last(), path.len().checked_sub(2).map(|i| path[i])) else {
        return Strategy::Plain;
    };
    let in_container = matches!(parent, Some("containers" | "initContainers" | "ephemeralContainers"));
    match *field {
        "ownerReferences" if parent == Some("metadata") => Strategy::MergeBy("uid"),
        "finalizers" if parent == Some("metadata") => Strategy::MergeSet,
        "conditions" if path == ["status", "conditions"] => Strategy::MergeBy("type"),
        "addresses" if kind == "Node" && parent == Some("status") => Strategy::MergeBy("type"),
        "podCIDRs" if kind == "Node" => Strategy::MergeSet,
        "secrets" if kind == "ServiceAccount" => Strategy::MergeBy("name"),
        "ports" if kind == "Service" && path == ["spec", "ports"] => Strategy::MergeBy("port"),
        "strategy" if kind == "Deployment" && path == ["spec", "strategy"] => Strategy::RetainKeys,
        "ports" if in_container => Strategy::MergeBy("containerPort"),
        "env" if in_container => Strategy::MergeBy("name"),
        "volumeMounts" if in_container => Strategy::MergeBy("mountPath"),
        "volumeDevices" if in_container => Strategy::MergeBy("devicePath"),
        _ if parent != Some("spec") => Strategy::Plain,
        "containers" | "initContainers" | "ephemeralContainers" | "imagePullSecrets" | "schedulingGates" => {
            Strategy::MergeBy("name")
        }
        "volumes" | "resourceClaims" => Strategy::MergeByRetainingKeys("name"),
        "hostAliases" => Strategy::MergeBy("ip"),
        "topologySpreadConstraints" => Strategy::MergeBy("topologyKey"),
        _ => Strategy::Plain,
    }
}

/// Whether servers know the kinds of this API group well enough for a strategic merge patch; others get a JSON merge
/// patch.
pub fn is_built_in(group: &str) -> bool {
    !group.contains('.') || group.ends_with(".k8s.io")
}
