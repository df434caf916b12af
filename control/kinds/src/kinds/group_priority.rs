//! In which order API groups and their versions are shown: kube-apiserver's priorities, as its APIServices name them.

/// The priorities of a version of a group. The higher number comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    /// `spec.groupPriorityMinimum` of the APIService.
    pub group: i32,
    /// `spec.versionPriority` of the APIService.
    pub version: i32,
}

/// A group, its priority, and its versions with theirs.
type Group = (&'static str, i32, &'static [(&'static str, i32)]);

/// Groups of this server.
const TABLE: &[Group] = &[
    ("", 18_000, &[("v1", 1)]),
    ("apps", 17_800, &[("v1", 15)]),
    ("events.k8s.io", 17_750, &[("v1", 15)]),
    ("authentication.k8s.io", 17_700, &[("v1", 15)]),
    ("authorization.k8s.io", 17_600, &[("v1", 15)]),
    ("autoscaling", 17_500, &[("v2", 30), ("v1", 15)]),
    ("batch", 17_400, &[("v1", 15)]),
    ("certificates.k8s.io", 17_300, &[("v1", 15)]),
    ("networking.k8s.io", 17_200, &[("v1", 15)]),
    ("policy", 17_100, &[("v1", 15)]),
    ("rbac.authorization.k8s.io", 17_000, &[("v1", 15)]),
    ("storage.k8s.io", 16_800, &[("v1", 15)]),
    ("admissionregistration.k8s.io", 16_700, &[("v1", 15)]),
    ("apiextensions.k8s.io", 16_700, &[("v1", 15)]),
    ("scheduling.k8s.io", 16_600, &[("v1", 15)]),
    ("coordination.k8s.io", 16_500, &[("v1", 15)]),
    ("node.k8s.io", 16_300, &[("v1", 15)]),
    ("discovery.k8s.io", 16_200, &[("v1", 15)]),
    ("resource.k8s.io", 16_200, &[("v1", 21)]),
    ("flowcontrol.apiserver.k8s.io", 16_100, &[("v1", 21)]),
];

/// The group of APIServices, which comes before all others and has no APIService of its own.
pub const AGGREGATOR: &str = "apiregistration.k8s.io";

/// The priorities of a version that has an APIService from the first start of a cluster.
pub fn built_in(group: &str, version: &str) -> Option<Priority> {
    let (_, group, versions) = TABLE.iter().find(|(name, ..)| *name == group)?;
    let (_, version) = versions.iter().find(|(name, _)| *name == version)?;
    Some(Priority { group: *group, version: *version })
}

/// Where a group stands among all groups: built-in ones by their priority, then all others in the order of their names.
pub fn of_group(group: &str) -> (i32, &str) {
    if group == AGGREGATOR {
        return (i32::MIN, group);
    }
    let known = TABLE.iter().find(|(name, ..)| *name == group);
    (known.map_or(0, |(_, priority, _)| -priority), group)
}

/// Every version of a group that has an APIService from the first start of a cluster.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, Priority)> {
    TABLE.iter().flat_map(|(name, group, versions)| {
        versions.iter().map(|(version, priority)| (*name, *version, Priority { group: *group, version: *priority }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_by_priority_and_then_by_name() {
        let mut groups =
            ["resource.k8s.io", "a.example.com", "batch", "apiregistration.k8s.io", "discovery.k8s.io", "apps"];
        groups.sort_by_key(|group| of_group(group));
        let expected =
            ["apiregistration.k8s.io", "apps", "batch", "discovery.k8s.io", "resource.k8s.io", "a.example.com"];
        assert_eq!(groups, expected);
        assert_eq!(built_in("autoscaling", "v2"), Some(Priority { group: 17_500, version: 30 }));
        assert_eq!(built_in("apps", "v1beta1"), None);
        assert!(all().count() >= 20);
    }
}
