//! One rule of a role: which verbs on which resources or paths it allows.

use std::fmt;

use serde_json::{Value, json};

use crate::auth::attributes::{Attributes, Resource};

/// A rule, as Kubernetes' `PolicyRule` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// `get`, `list`…, or `*` for all.
    pub verbs: Vec<String>,
    /// Empty text is the core group, `*` all.
    pub api_groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale`, or `*` for all.
    pub resources: Vec<String>,
    /// Names of the objects that the rule is about; empty for all.
    pub resource_names: Vec<String>,
    /// Paths that are no resources; a `*` at the end stands for anything.
    pub non_resource_urls: Vec<String>,
}

/// The entry that stands for everything.
pub const ALL: &str = "*";

fn has(list: &[String], entry: &str) -> bool {
    list.iter().any(|one| one == entry)
}

fn has_or_all(list: &[String], entry: &str) -> bool {
    list.iter().any(|one| one == ALL || one == entry)
}

/// Whether a path of a rule takes in another path, which may be one of a rule, too.
fn path_takes_in(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*'))
}

impl Rule {
    /// Reads a rule of a stored role.
    pub fn of(rule: &Value) -> Self {
        let list = |field: &str| -> Vec<String> {
            let texts = rule[field].as_array().into_iter().flatten().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        };
        Self {
            verbs: list("verbs"),
            api_groups: list("apiGroups"),
            resources: list("resources"),
            resource_names: list("resourceNames"),
            non_resource_urls: list("nonResourceURLs"),
        }
    }

    /// Reads the rules of a stored role.
    pub fn all_of(role: &Value) -> Vec<Self> {
        role["rules"].as_array().into_iter().flatten().map(Self::of).collect()
    }

    /// As it stands in a role.
    pub fn to_json(&self) -> Value {
        let mut rule = json!({"verbs": self.verbs});
        for (field, list) in [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ] {
            if !list.is_empty() {
                rule[field] = json!(list);
            }
        }
        rule
    }

    /// Whether the rule allows what is asked.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        match attributes {
            Attributes::Resource(resource) => self.allows_resource(resource),
            Attributes::Path { verb, path } => {
                has_or_all(&self.verbs, verb) && self.non_resource_urls.iter().any(|own| path_takes_in(own, path))
            }
        }
    }

    fn allows_resource(&self, r: &Resource<'_>) -> bool {
        let is_it = |own: &String| match r.subresource {
            "" => own == ALL || own == r.resource,
            subresource => {
                own == ALL
                    || own
                        .split_once('/')
                        .is_some_and(|(resource, of)| of == subresource && (resource == ALL || resource == r.resource))
            }
        };
        has_or_all(&self.verbs, r.verb)
            && has_or_all(&self.api_groups, r.group)
            && self.resources.iter().any(is_it)
            && (self.resource_names.is_empty() || has(&self.resource_names, r.name))
    }

    /// Whether the rule allows all that `part` allows, which has one entry in each list at most.
    pub fn covers(&self, part: &Rule) -> bool {
        let all_of = |own: &[String], asked: &[String]| has(own, ALL) || asked.iter().all(|entry| has(own, entry));
        let resource = |asked: &String| {
            let everywhere = asked.split_once('/').is_some_and(|(_, of)| has(&self.resources, &format!("*/{of}")));
            has(&self.resources, ALL) || has(&self.resources, asked) || everywhere
        };
        let path = |asked: &String| self.non_resource_urls.iter().any(|own| path_takes_in(own, asked));
        let name = |asked: &String| has(&self.resource_names, asked);
        all_of(&self.verbs, &part.verbs)
            && all_of(&self.api_groups, &part.api_groups)
            && part.resources.iter().all(resource)
            && part.non_resource_urls.iter().all(path)
            && (self.resource_names.is_empty()
                || !part.resource_names.is_empty() && part.resource_names.iter().all(name))
    }
}

/// As Kubernetes shows a rule in a refusal: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |list: &[String]| list.iter().map(|entry| format!("{entry:?}")).collect::<Vec<_>>().join(" ");
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown = parts.into_iter().filter(|(_, list)| !list.is_empty());
        let shown: Vec<String> = shown.map(|(name, list)| format!("{name}:[{}]", quoted(list))).collect();
        write!(f, "{{{}}}", shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::info;

    fn allows(rule: &Value, method: &str, uri: &str) -> bool {
        Rule::of(rule).allows(&Attributes::of(&info(method, uri)))
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let pods = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]});
        assert!(allows(&pods, "GET", "/api/v1/namespaces/a/pods/p"));
        assert!(allows(&pods, "GET", "/api/v1/pods"));
        assert!(allows(&pods, "GET", "/api/v1/namespaces/a/pods/p/log"));
        for (method, uri) in [
            ("DELETE", "/api/v1/namespaces/a/pods/p"),
            ("GET", "/api/v1/namespaces/a/pods/p/status"),
            ("GET", "/api/v1/namespaces/a/services/p"),
            ("GET", "/apis/metrics.k8s.io/v1/namespaces/a/pods/p"),
            ("GET", "/api/v1/pods?watch=1"),
            ("GET", "/metrics"),
        ] {
            assert!(!allows(&pods, method, uri), "{method} {uri}");
        }
    }

    #[test]
    fn names_and_stars_narrow_and_widen() {
        let named = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["configmaps"], "resourceNames": ["a"]});
        assert!(allows(&named, "PUT", "/api/v1/namespaces/x/configmaps/a"));
        assert!(!allows(&named, "PUT", "/api/v1/namespaces/x/configmaps/b"));
        assert!(!allows(&named, "POST", "/api/v1/namespaces/x/configmaps"));
        assert!(allows(&named, "GET", "/api/v1/namespaces/x/configmaps?fieldSelector=metadata.name%3Da"));
        let scale = json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*/scale"]});
        assert!(allows(&scale, "GET", "/apis/apps/v1/namespaces/x/deployments/d/scale"));
        assert!(!allows(&scale, "GET", "/apis/apps/v1/namespaces/x/deployments/d"));
        let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
        assert!(allows(&all, "GET", "/apis/apps/v1/namespaces/x/deployments/d/scale"));
        assert!(!allows(&all, "GET", "/metrics"), "paths are apart from resources");
    }

    #[test]
    fn paths_may_end_in_a_star() {
        let rule = json!({"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/healthz*"]});
        for path in ["/api", "/api/v1", "/healthz", "/healthz/ping"] {
            assert!(allows(&rule, "GET", path), "{path}");
        }
        for path in ["/apis", "/", "/livez"] {
            assert!(!allows(&rule, "GET", path), "{path}");
        }
        assert!(!allows(&rule, "POST", "/api"));
    }

    #[test]
    fn a_rule_reads_as_in_kubernetes() {
        let rule = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"]});
        let text = "{APIGroups:[\"\"], Resources:[\"pods\"], ResourceNames:[\"p\"], Verbs:[\"get\" \"list\"]}";
        assert_eq!(Rule::of(&rule).to_string(), text);
        assert_eq!(Rule::of(&rule).to_json(), rule);
    }
}
