//! The directions of dependencies: `fairlead → control, node-agent`; `node-agent → proxy-ebpf`; all three → `client`;
//! `control` and `node-agent` → `serving`; nothing else among ourselves.

use serde_json::Value;

/// Which of our crates each of our crates may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("fairlead", &["fairlead-client", "fairlead-control", "fairlead-node-agent", "proxy-ebpf"]),
    ("fairlead-client", &[]),
    (
        "fairlead-control",
        &[
            "fairlead-client",
            "fairlead-controllers",
            "fairlead-encryption",
            "fairlead-kinds",
            "fairlead-pki",
            "fairlead-serving",
            "fairlead-store",
        ],
    ),
    ("fairlead-controllers", &["fairlead-client", "fairlead-kinds", "fairlead-pki", "fairlead-serving"]),
    ("fairlead-dns", &["fairlead-serving", "fairlead-world"]),
    ("fairlead-encryption", &["fairlead-store"]),
    ("fairlead-kinds", &[]),
    ("fairlead-node-agent", &["fairlead-client", "fairlead-dns", "fairlead-serving", "fairlead-world", "proxy-ebpf"]),
    ("fairlead-pki", &[]),
    ("fairlead-serving", &[]),
    ("fairlead-store", &[]),
    ("fairlead-world", &["fairlead-client", "fairlead-serving"]),
    ("proxy-ebpf", &[]),
    ("xtask", &[]),
];

/// Every dependency among our own crates that goes the wrong way.
pub fn problems(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            found.push(format!("dependencies: the crate {name} is not in the design"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let ours = ALLOWED.iter().any(|(known, _)| *known == used);
            if ours && !allowed.contains(&used) {
                found.push(format!("dependencies: {name} must not know {used}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn control_and_node_agent_must_not_know_each_other() {
        let metadata = json!({"packages": [
            {"name": "fairlead-control", "dependencies": [{"name": "serde"}, {"name": "fairlead-node-agent"}]},
            {"name": "fairlead-node-agent", "dependencies": [{"name": "proxy-ebpf"}]}]});
        assert_eq!(problems(&metadata), ["dependencies: fairlead-control must not know fairlead-node-agent"]);
    }
}
