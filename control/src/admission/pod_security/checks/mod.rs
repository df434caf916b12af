//! The checks of Kubernetes' pod security standards, each as the versions of Kubernetes define it.

pub mod capabilities;
pub mod host_access;
pub mod privileges;
pub mod probe_hosts;
pub mod proc_mount;
pub mod profiles;
pub mod seccomp;
pub mod sysctls;
#[cfg(test)]
mod tests;
pub mod user;
pub mod volumes;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::kinds::{pod::all_containers, reading::text};

/// Says how a pod violates a rule.
pub type PodCheck = fn(PodView<'_>) -> Option<Violation>;

/// A pod, or the template of pods.
#[derive(Clone, Copy)]
pub struct PodView<'a> {
    /// `metadata.annotations`
    pub annotations: &'a Value,
    /// `spec`
    pub spec: &'a Value,
}

/// How a pod violates a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Shortly, and the same for all pods: `host namespaces`.
    pub reason: &'static str,
    /// With the values: `hostNetwork=true`. May be empty.
    pub detail: String,
}

impl<'a> PodView<'a> {
    /// Of a pod or a template.
    pub fn of(pod: &'a Value) -> Self {
        Self { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] }
    }

    /// All containers, those of the start first.
    fn containers(self) -> impl Iterator<Item = &'a Value> {
        all_containers(self.spec)
    }

    /// The names of the containers for which `is_bad` holds.
    fn containers_where(self, mut is_bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| is_bad(container)).map(|container| text(container, "name")).collect()
    }

    /// Who sets something wrong in its security context: `pod`, and the containers by name. Nothing if nobody does.
    fn setters(self, mut is_bad: impl FnMut(&'a Value) -> bool) -> Vec<String> {
        let mut setters = Vec::new();
        if is_bad(&self.spec["securityContext"]) {
            setters.push("pod".to_owned());
        }
        let containers = self.containers_where(|container| is_bad(&container["securityContext"]));
        if !containers.is_empty() {
            setters.push(named(&containers));
        }
        setters
    }

    /// Whether root in the pod is nobody on its host.
    fn has_user_namespace(self) -> bool {
        self.spec["hostUsers"] == false
    }

    /// Whether it runs on Windows, where some rules mean nothing.
    fn is_windows(self) -> bool {
        self.spec["os"]["name"] == "windows"
    }
}

impl Violation {
    fn new(reason: &'static str, detail: String) -> Option<Self> {
        Some(Self { reason, detail })
    }
}

/// `container "a"`, `containers "a", "b"`
fn named(containers: &[&str]) -> String {
    format!("{} {}", plural(containers.len(), "container", "containers"), quoted(containers))
}

/// `"a", "b"`
fn quoted<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    texts.into_iter().map(|text| format!("\"{}\"", text.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// Texts, sorted and each once.
type Texts<'a> = BTreeSet<&'a str>;
