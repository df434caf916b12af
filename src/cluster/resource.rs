//! What a cluster serves, from its discovery documents, and what a word such as `deploy` or `svc` means in it.

use serde_json::Value;

use super::Cluster;
use crate::hint::ErrorWithHint;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// One served resource in one group and version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceType {
    /// Empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// `Deployment`
    pub kind: String,
    /// `deployments`: what stands in paths.
    pub plural: String,
    /// `deployment`
    pub singular: String,
    /// `deploy`
    pub short_names: Vec<String>,
    /// Groups of types that can be asked for together, such as `all`.
    pub categories: Vec<String>,
    /// Whether its objects belong to namespaces.
    pub namespaced: bool,
    /// What the server can do with it: `list`, `watch`…
    pub verbs: Vec<String>,
}

impl ResourceType {
    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `service/web`, `deployment.apps/web`: how kubectl names an object it has worked on.
    pub fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.qualified_singular())
    }

    /// `service`, `deployment.apps`
    pub fn qualified_singular(&self) -> String {
        if self.group.is_empty() { self.singular.clone() } else { format!("{}.{}", self.singular, self.group) }
    }

    fn answers_to(&self, word: &str) -> bool {
        self.plural == word
            || self.singular == word
            || self.kind.eq_ignore_ascii_case(word)
            || self.short_names.iter().any(|short| short == word)
    }
}

/// All served resources, preferred versions first.
#[derive(Clone, Debug, Default)]
pub struct Resources(Vec<ResourceType>);

impl Resources {
    /// Asks for the aggregated documents and falls back to the plain ones, which every server has.
    pub async fn discover(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        let core = cluster.get_as("/api", AGGREGATED).await?;
        if core["kind"] == "APIGroupDiscoveryList" {
            let groups = cluster.get_as("/apis", AGGREGATED).await?;
            read_aggregated(&core, &mut all);
            read_aggregated(&groups, &mut all);
            return Ok(Self(all));
        }
        read_plain(&cluster.get("/api/v1").await?, "", "v1", &mut all);
        let groups = cluster.get("/apis").await?;
        for group in items(&groups["groups"]) {
            for version in items(&group["versions"]) {
                let path = format!("/apis/{}", text(&version["groupVersion"]));
                read_plain(&cluster.get(&path).await?, &text(&group["name"]), &text(&version["version"]), &mut all);
            }
        }
        Ok(Self(all))
    }

    /// What `word` names: `pods`, `po`, `Pod`, `deployments.apps`, `deployments.v1.apps`.
    pub fn resolve(&self, word: &str) -> anyhow::Result<&ResourceType> {
        let lower = word.to_lowercase();
        let found = self.0.iter().find(|kind| kind.answers_to(&lower)).or_else(|| {
            let (name, rest) = lower.split_once('.')?;
            self.0.iter().find(|kind| {
                kind.answers_to(name) && (kind.group == rest || rest == format!("{}.{}", kind.version, kind.group))
            })
        });
        found.ok_or_else(|| {
            let mut known: Vec<&str> = self.0.iter().map(|kind| kind.plural.as_str()).collect();
            known.sort_unstable();
            known.dedup();
            ErrorWithHint::new(
                format!("the server doesn't have a resource type \"{word}\""),
                format!("it has: {}", known.join(", ")),
            )
            .into()
        })
    }

    /// The resource that objects of this `apiVersion` and `kind` belong to.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&ResourceType> {
        self.0.iter().find(|r| r.kind == kind && r.api_version() == api_version)
    }

    /// Members of a category such as `all`, one version each.
    pub fn in_category(&self, category: &str) -> Vec<&ResourceType> {
        let mut found: Vec<&ResourceType> = Vec::new();
        for kind in self.0.iter().filter(|kind| kind.categories.iter().any(|c| c == category)) {
            if !found.iter().any(|f| f.group == kind.group && f.plural == kind.plural) {
                found.push(kind);
            }
        }
        found
    }

    /// All of them, preferred versions first.
    pub fn all(&self) -> &[ResourceType] {
        &self.0
    }

    /// A cluster that serves these.
    #[cfg(test)]
    pub fn of(all: Vec<ResourceType>) -> Self {
        Self(all)
    }
}

fn read_aggregated(list: &Value, all: &mut Vec<ResourceType>) {
    for group in items(&list["items"]) {
        for version in items(&group["versions"]) {
            for resource in items(&version["resources"]) {
                let kind = text(&resource["responseKind"]["kind"]);
                let singular = text(&resource["singularResource"]);
                all.push(ResourceType {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    singular: if singular.is_empty() { kind.to_lowercase() } else { singular },
                    kind,
                    plural: text(&resource["resource"]),
                    short_names: texts(&resource["shortNames"]),
                    categories: texts(&resource["categories"]),
                    namespaced: resource["scope"] == "Namespaced",
                    verbs: texts(&resource["verbs"]),
                });
            }
        }
    }
}

fn read_plain(list: &Value, group: &str, version: &str, all: &mut Vec<ResourceType>) {
    for resource in items(&list["resources"]) {
        let plural = text(&resource["name"]);
        if plural.contains('/') {
            continue;
        }
        let kind = text(&resource["kind"]);
        let singular = text(&resource["singularName"]);
        all.push(ResourceType {
            group: group.to_owned(),
            version: version.to_owned(),
            singular: if singular.is_empty() { kind.to_lowercase() } else { singular },
            kind,
            plural,
            short_names: texts(&resource["shortNames"]),
            categories: texts(&resource["categories"]),
            namespaced: resource["namespaced"] == true,
            verbs: texts(&resource["verbs"]),
        });
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn served() -> Resources {
        let mut all = Vec::new();
        read_plain(
            &json!({"resources": [
                {"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": true, "shortNames": ["po"],
                    "categories": ["all"]},
                {"name": "pods/log", "kind": "Pod", "namespaced": true}]}),
            "",
            "v1",
            &mut all,
        );
        read_aggregated(
            &json!({"items": [{"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
                {"resource": "deployments", "singularResource": "deployment", "responseKind": {"kind": "Deployment"},
                 "scope": "Namespaced", "shortNames": ["deploy"], "categories": ["all"]}]}]}]}),
            &mut all,
        );
        Resources::of(all)
    }

    #[test]
    fn a_resource_answers_to_all_its_names() {
        let served = served();
        for word in ["deployments", "deployment", "deploy", "Deployment", "deployments.apps", "deploy.v1.apps"] {
            assert_eq!(served.resolve(word).expect(word).plural, "deployments", "{word}");
        }
        assert_eq!(served.resolve("po").expect("po").named("a"), "pod/a");
        assert!(served.resolve("pods.apps").is_err());
    }

    #[test]
    fn an_unknown_type_is_refused_with_what_there_is() {
        let error = served().resolve("widgets").expect_err("no such type");
        assert!(crate::failure::describe(&error).contains("it has: deployments, pods"));
    }
}
