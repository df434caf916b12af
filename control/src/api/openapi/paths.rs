//! The paths of one kind and their operations: names, parameters, bodies and answers as Kubernetes publishes them,
//! since clients are generated from them.

use serde_json::{Map, Value, json};

use super::parameters;
use crate::{
    api::subresource::{self, Subresource},
    kinds::{Kind, Storage},
    schema::Schema,
};

/// `api/v1`, `apis/apps/v1`
pub fn root(kind: &Kind) -> String {
    match &*kind.group {
        "" => format!("api/{}", kind.version),
        group => format!("apis/{group}/{}", kind.version),
    }
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const SCALAR_TYPES: [&str; 3] = ["DeleteOptions", "ListMeta", "Status"];

/// Schemas that requests and answers have beside those of the kinds.
pub fn beside_kinds() -> impl Iterator<Item = Schema> {
    let forms = subresource::ALL.iter().filter_map(|subresource| subresource.form).map(|form| form.schema.to_owned());
    SCALAR_TYPES.into_iter().map(|name| format!("{META}{name}")).chain(forms).filter_map(|name| Schema::builtin(&name))
}

/// Every path of `kind`.
pub fn of(kind: &Kind) -> Vec<(String, Value)> {
    let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{}{scope}/{}", root(kind), kind.plural);
    let item = format!("{collection}/{{name}}");
    let paths = Paths { kind, names: Names::of(kind) };
    if matches!(kind.storage, Storage::Virtual) {
        return vec![(collection, paths.item(&[paths.create()], kind.namespaced, false))];
    }
    let verbs = kind.verbs();
    let has = |verb: &str| verbs.contains(&verb);
    let mut all = Vec::new();
    let mut on_collection = Vec::new();
    if has("list") {
        on_collection.push(paths.list(false));
    }
    if has("create") {
        on_collection.push(paths.create());
    }
    if has("deletecollection") {
        on_collection.push(paths.delete_collection());
    }
    all.push((collection, paths.item(&on_collection, kind.namespaced, false)));
    all.push((item.clone(), paths.item(&paths.whole(verbs, None), kind.namespaced, true)));
    if kind.namespaced && has("list") {
        let everywhere = format!("/{}/{}", root(kind), kind.plural);
        all.push((everywhere, paths.item(&[paths.list(true)], false, false)));
    }
    // Streams are not found by these documents.
    let subresources = kind.subresources.iter().filter_map(|segment| Subresource::of(kind, segment));
    for subresource in subresources.filter(|subresource| !subresource.by_agent()) {
        let operations = paths.whole(subresource.verbs, Some(subresource));
        let path = format!("{item}/{}", subresource.segment);
        all.push((path, paths.item(&operations, kind.namespaced, true)));
    }
    if has("watch") {
        all.extend(paths.watches(scope));
    }
    all
}

/// How the operations of a kind are called.
struct Names {
    /// `apps_v1`
    tag: String,
    /// `AppsV1`
    version: String,
    /// `NamespacedDeployment`, or `Node`
    kind: String,
}

impl Names {
    fn of(kind: &Kind) -> Self {
        let group = if kind.group.is_empty() { "core" } else { kind.group.trim_end_matches(".k8s.io") };
        let words = group.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let group: String = words.map(capitalised).collect();
        let lower = group.char_indices().map(|(at, c)| if at == 0 { c.to_ascii_lowercase() } else { c });
        let scope = if kind.namespaced { "Namespaced" } else { "" };
        Self {
            tag: format!("{}_{}", lower.collect::<String>(), kind.version),
            version: format!("{group}{}", capitalised(&kind.version)),
            kind: format!("{scope}{}", kind.kind),
        }
    }
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// An operation with its HTTP method.
type Operation = (&'static str, Value);

/// Writes the operations of one kind.
struct Paths<'a> {
    kind: &'a Kind,
    names: Names,
}

impl Paths<'_> {
    /// A path with the parameters that are in it.
    fn item(&self, operations: &[Operation], namespaced: bool, named: bool) -> Value {
        let mut item = Map::new();
        for (method, operation) in operations {
            item.insert((*method).to_owned(), operation.clone());
        }
        let mut parameters = Vec::new();
        if named {
            parameters.push(parameters::in_path("name", &format!("name of the {}", self.kind.kind)));
        }
        if namespaced {
            parameters.push(parameters::NAMESPACE.in_path());
        }
        parameters.push(parameters::PRETTY.in_query());
        item.insert("parameters".into(), parameters.into());
        Value::Object(item)
    }

    /// What all operations have; `kind` is the group, version and kind of what is sent or answered.
    fn operation(&self, action: &str, id: String, description: String, (g, v, k): (&str, &str, &str)) -> Value {
        json!({
            "description": description,
            "operationId": id,
            "tags": [self.names.tag],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": g, "kind": k, "version": v},
        })
    }

    fn own(&self) -> (&str, &str, &str) {
        (&self.kind.group, &self.kind.version, &self.kind.kind)
    }

    fn list(&self, everywhere: bool) -> Operation {
        let Names { version, kind, .. } = &self.names;
        let id = match everywhere {
            true => format!("list{version}{}ForAllNamespaces", self.kind.kind),
            false => format!("list{version}{kind}"),
        };
        let description = format!("list or watch objects of kind {}", self.kind.kind);
        let mut operation = self.operation("list", id, description, self.own());
        operation["parameters"] = parameters::of_query(&parameters::LIST);
        operation["responses"] = self.responses(&[200], &format!("{}List", self.kind.schema.name()), true);
        ("get", operation)
    }

    fn create(&self) -> Operation {
        let Names { version, kind, .. } = &self.names;
        let id = format!("create{version}{kind}");
        let mut operation = self.operation("post", id, format!("create {}", article(&self.kind.kind)), self.own());
        operation["parameters"] = parameters::of_query(&parameters::WRITE);
        operation["requestBody"] = body(self.kind.schema.name(), true);
        operation["responses"] = self.responses(&[200, 201, 202], self.kind.schema.name(), false);
        ("post", operation)
    }

    fn delete_collection(&self) -> Operation {
        let Names { version, kind, .. } = &self.names;
        let id = format!("delete{version}Collection{kind}");
        let description = format!("delete collection of {}", self.kind.kind);
        let mut operation = self.operation("deletecollection", id, description, self.own());
        operation["parameters"] = parameters::of_query(&parameters::DELETE_COLLECTION);
        operation["requestBody"] = body(&format!("{META}DeleteOptions"), false);
        operation["responses"] = self.responses(&[200], &format!("{META}Status"), false);
        ("delete", operation)
    }

    /// The operations on one object, or on a subresource of it.
    fn whole(&self, verbs: &[&str], subresource: Option<&Subresource>) -> Vec<Operation> {
        let Names { version, kind, .. } = &self.names;
        let what = match subresource {
            Some(subresource) => format!("{} of the specified {}", subresource.segment, self.kind.kind),
            None => format!("the specified {}", self.kind.kind),
        };
        let suffix = subresource.map(|subresource| capitalised(subresource.segment)).unwrap_or_default();
        let gvk = subresource.map_or(self.own(), |subresource| subresource.form_of(self.kind));
        let form = subresource.and_then(|subresource| subresource.form);
        let schema = form.map_or(self.kind.schema.name(), |form| form.schema);
        let mut all = Vec::new();
        if verbs.contains(&"get") {
            let mut get = self.operation("get", format!("read{version}{kind}{suffix}"), format!("read {what}"), gvk);
            get["responses"] = self.responses(&[200], schema, false);
            all.push(("get", get));
        }
        if verbs.contains(&"update") {
            let mut put =
                self.operation("put", format!("replace{version}{kind}{suffix}"), format!("replace {what}"), gvk);
            put["parameters"] = parameters::of_query(&parameters::WRITE);
            put["requestBody"] = body(schema, true);
            put["responses"] = self.responses(&[200, 201], schema, false);
            all.push(("put", put));
        }
        if verbs.contains(&"patch") {
            let description = format!("partially update {what}");
            let mut patch = self.operation("patch", format!("patch{version}{kind}{suffix}"), description, gvk);
            patch["parameters"] = parameters::of_query(&parameters::PATCH);
            patch["requestBody"] = json!({"required": true, "content": patches(self.kind)});
            patch["responses"] = self.responses(&[200, 201], schema, false);
            all.push(("patch", patch));
        }
        if let Some(subresource) = subresource.filter(|_| verbs.contains(&"create")) {
            let description = format!("create {} of {}", subresource.segment, article(&self.kind.kind));
            let mut post = self.operation("post", format!("create{version}{kind}{suffix}"), description, gvk);
            post["parameters"] = parameters::of_query(&parameters::WRITE);
            post["requestBody"] = body(schema, true);
            post["responses"] = self.responses(&[200, 201, 202], schema, false);
            all.push(("post", post));
        }
        if verbs.contains(&"delete") && subresource.is_none() {
            let description = format!("delete {}", article(&self.kind.kind));
            let mut delete = self.operation("delete", format!("delete{version}{kind}"), description, gvk);
            delete["parameters"] = parameters::of_query(&parameters::DELETE);
            delete["requestBody"] = body(&format!("{META}DeleteOptions"), false);
            delete["responses"] = self.responses(&[200, 202], &format!("{META}Status"), false);
            all.push(("delete", delete));
        }
        all
    }

    /// The older paths of watches.
    fn watches(&self, scope: &str) -> Vec<(String, Value)> {
        let (root, kind) = (root(self.kind), self.kind);
        let Names { version, kind: name, .. } = &self.names;
        let watch = |action: &str, id: String, what: &str, more: &str, namespaced: bool, named: bool| {
            let description = format!(
                "watch {what} {}. deprecated: use the 'watch' parameter with a list operation instead{more}.",
                kind.kind
            );
            let mut get = self.operation(action, id, description, self.own());
            get["responses"] = self.responses(&[200], &format!("{META}WatchEvent"), true);
            let mut item = self.item(&[("get", get)], namespaced, named);
            if let Some(list) = item["parameters"].as_array_mut() {
                list.extend(parameters::of_query(&parameters::LIST).as_array().into_iter().flatten().cloned());
            }
            item
        };
        let changes = "individual changes to a list of";
        let mut all = Vec::new();
        if kind.namespaced {
            let id = format!("watch{version}{}ListForAllNamespaces", kind.kind);
            all.push((format!("/{root}/watch/{}", kind.plural), watch("watchlist", id, changes, "", false, false)));
        }
        let collection = format!("/{root}/watch{scope}/{}", kind.plural);
        let id = format!("watch{version}{name}List");
        all.push((collection.clone(), watch("watchlist", id, changes, "", kind.namespaced, false)));
        let filtered = ", filtered to a single item with the 'fieldSelector' parameter";
        let id = format!("watch{version}{name}");
        let item = watch("watch", id, "changes to an object of kind", filtered, kind.namespaced, true);
        all.push((format!("{collection}/{{name}}"), item));
        all
    }

    /// The answers with these codes; all but a refusal have the same schema.
    fn responses(&self, codes: &[u16], schema: &str, streams: bool) -> Value {
        let mut types = vec!["application/json"];
        if streams {
            types.push("application/json;stream=watch");
        }
        if self.kind.is_built_in() {
            types.push("application/vnd.kubernetes.protobuf");
            if streams {
                types.push("application/vnd.kubernetes.protobuf;stream=watch");
            }
        }
        types.push("application/yaml");
        let content: Map<String, Value> =
            types.into_iter().map(|name| (name.to_owned(), json!({"schema": reference(schema)}))).collect();
        let mut all = Map::new();
        for code in codes {
            let description = match code {
                201 => "Created",
                202 => "Accepted",
                _ => "OK",
            };
            all.insert(code.to_string(), json!({"content": content, "description": description}));
        }
        all.insert("401".into(), json!({"description": "Unauthorized"}));
        Value::Object(all)
    }
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn body(schema: &str, required: bool) -> Value {
    let mut body = json!({"content": {"*/*": {"schema": reference(schema)}}});
    if required {
        body["required"] = true.into();
    }
    body
}

fn patches(kind: &Kind) -> Value {
    let mut types = vec!["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
    if kind.is_built_in() {
        types.push("application/strategic-merge-patch+json");
    }
    let schema = json!({"schema": reference(&format!("{META}Patch"))});
    types.into_iter().map(|name| (name.to_owned(), schema.clone())).collect::<Map<_, _>>().into()
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['A', 'E', 'I', 'O', 'U']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kinds::Kinds;

    /// The names that Kubernetes publishes, by which generated clients name their functions.
    #[test]
    fn operations_are_called_as_in_kubernetes() {
        let kinds = Kinds::built_in();
        let paths: BTreeMap<String, Value> = kinds.iter().flat_map(|kind| of(kind)).collect();
        for (path, method, id, action) in [
            ("/api/v1/pods", "get", "listCoreV1PodForAllNamespaces", "list"),
            ("/api/v1/namespaces/{namespace}/pods", "get", "listCoreV1NamespacedPod", "list"),
            ("/api/v1/namespaces/{namespace}/pods", "post", "createCoreV1NamespacedPod", "post"),
            (
                "/api/v1/namespaces/{namespace}/pods",
                "delete",
                "deleteCoreV1CollectionNamespacedPod",
                "deletecollection",
            ),
            ("/api/v1/namespaces/{namespace}/pods/{name}", "put", "replaceCoreV1NamespacedPod", "put"),
            ("/api/v1/namespaces/{namespace}/pods/{name}/status", "patch", "patchCoreV1NamespacedPodStatus", "patch"),
            ("/api/v1/namespaces/{namespace}/pods/{name}/binding", "post", "createCoreV1NamespacedPodBinding", "post"),
            ("/api/v1/nodes/{name}", "get", "readCoreV1Node", "get"),
            ("/api/v1/watch/nodes", "get", "watchCoreV1NodeList", "watchlist"),
            ("/api/v1/watch/namespaces/{namespace}/pods/{name}", "get", "watchCoreV1NamespacedPod", "watch"),
            ("/api/v1/watch/pods", "get", "watchCoreV1PodListForAllNamespaces", "watchlist"),
            (
                "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale",
                "get",
                "readAppsV1NamespacedDeploymentScale",
                "get",
            ),
            ("/apis/discovery.k8s.io/v1/endpointslices", "get", "listDiscoveryV1EndpointSliceForAllNamespaces", "list"),
        ] {
            let operation = &paths[path][method];
            assert_eq!(operation["operationId"], id, "{path}");
            assert_eq!(operation["x-kubernetes-action"], action, "{path}");
        }
        assert_eq!(paths["/apis/apps/v1/deployments"]["get"]["tags"], json!(["apps_v1"]));
        let scale = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["put"];
        let gvk = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
        assert_eq!(scale["x-kubernetes-group-version-kind"], gvk);
    }

    #[test]
    fn no_two_operations_have_one_name() {
        let mut seen = BTreeMap::new();
        for (path, item) in Kinds::built_in().iter().flat_map(|kind| of(kind)) {
            for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
                let id = operation["operationId"].as_str().unwrap().to_owned();
                let place = format!("{method} {path}");
                if let Some(other) = seen.insert(id.clone(), place.clone()) {
                    panic!("{id}: {other} and {place}");
                }
            }
        }
    }
}
