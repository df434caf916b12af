//! Which objects a verb is about: its words, `-f`, `-l`, `--all` and `-A` together, read in this one place for all
//! verbs.

use anyhow::{bail, ensure};
use serde_json::Value;

use crate::{
    cluster::{Cluster, ResourceType, check_name, object_path, resource_path, select, with_query},
    manifest::{self, FileArgs},
};

/// What the command line says of the objects. A verb leaves out the flags that it does not have.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObjectQuery<'a> {
    /// TYPE, TYPE NAME…, or TYPE/NAME….
    pub words: &'a [String],
    /// `-f`; `None` for a verb without it.
    pub files: Option<&'a FileArgs>,
    /// `-A`
    pub all_namespaces: bool,
    /// `--all`
    pub all: bool,
    /// `-l`, as it was given.
    pub label_selector: Option<&'a str>,
    /// `--field-selector`, as it was given.
    pub field_selector: Option<&'a str>,
    /// What a type without names means to the verb.
    pub unnamed: WithoutNames,
}

/// What a type without names means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutNames {
    /// All objects of the type.
    #[default]
    All,
    /// Those that `-l`, `--field-selector` or `--all` select; an error without one of them.
    OnlySelected,
    /// An error.
    Refused,
}

/// Objects of one type in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    /// Their type, as the server names it.
    pub kind: ResourceType,
    /// `None` for all namespaces; meaningless for kinds without namespaces.
    pub namespace: Option<String>,
    /// Names, each valid; empty for all objects that the selectors match.
    pub names: Vec<String>,
    /// For the server, as it was given; `None` with names.
    pub label_selector: Option<String>,
    /// For the server, as it was given; `None` with names.
    pub field_selector: Option<String>,
}

/// What was found, and what of the manifests could not be read.
#[derive(Debug, Default)]
pub struct Resolved {
    /// In the order of the command line.
    pub objects: Vec<Objects>,
    /// Each with its file and line.
    pub problems: Vec<anyhow::Error>,
}

impl ObjectQuery<'_> {
    /// Reads words and manifests. An object of a manifest is looked for in the manifest's own namespace.
    pub async fn resolve(&self, cluster: &Cluster) -> anyhow::Result<Resolved> {
        let resolved = match self.files.filter(|files| !files.filename.is_empty()) {
            Some(files) => self.read_files(cluster, files).await?,
            None => self.read_words(cluster).await?,
        };
        for objects in &resolved.objects {
            self.check(objects)?;
        }
        Ok(resolved)
    }

    async fn read_files(&self, cluster: &Cluster, files: &FileArgs) -> anyhow::Result<Resolved> {
        ensure!(
            self.words.is_empty(),
            "when files are given by -f, resource arguments may not be given as well: {}",
            self.words.join(" ")
        );
        let mut resolved = Resolved::default();
        for document in manifest::read(files)? {
            let object = match document {
                Ok(manifest) => super::target(cluster, &manifest).await.and_then(|target| {
                    check_name(manifest.name()).map_err(|error| anyhow::anyhow!("{}: {error}", manifest.location))?;
                    Ok((target.kind, target.namespace, manifest.name().to_owned()))
                }),
                Err(problem) => Err(problem.into()),
            };
            match object {
                Ok((kind, namespace, name)) => resolved.add(kind, namespace, name),
                Err(error) => resolved.problems.push(error),
            }
        }
        Ok(resolved)
    }

    async fn read_words(&self, cluster: &Cluster) -> anyhow::Result<Resolved> {
        let namespace = (!self.all_namespaces).then(|| cluster.namespace().to_owned());
        let selections = select(cluster.resources().await?, self.words)?;
        let objects = selections.into_iter().map(|selection| Objects {
            kind: selection.kind,
            namespace: namespace.clone(),
            names: selection.names,
            label_selector: self.label_selector.map(str::to_owned),
            field_selector: self.field_selector.map(str::to_owned),
        });
        Ok(Resolved { objects: objects.collect(), problems: Vec::new() })
    }

    /// Refuses flags that contradict each other, in kubectl's words where it has some.
    fn check(&self, objects: &Objects) -> anyhow::Result<()> {
        let selected = self.label_selector.is_some() || self.field_selector.is_some();
        ensure!(!(self.all && selected), "--all and a selector cannot be given together");
        if !objects.names.is_empty() {
            ensure!(!selected && !self.all, "name cannot be provided when a selector or --all is specified");
            ensure!(!self.all_namespaces, "a resource cannot be retrieved by name across all namespaces");
            return Ok(());
        }
        match self.unnamed {
            WithoutNames::OnlySelected if !selected && !self.all => {
                bail!("resource(s) were provided, but no name was specified; name objects, or use -l or --all")
            }
            WithoutNames::Refused => bail!("name what is meant: {}/NAME", objects.kind.singular),
            _ => Ok(()),
        }
    }
}

impl Resolved {
    /// Adds an object of a manifest to those of its type and namespace.
    fn add(&mut self, kind: ResourceType, namespace: String, name: String) {
        let namespace = Some(namespace);
        match self.objects.iter_mut().find(|objects| objects.kind == kind && objects.namespace == namespace) {
            Some(objects) => objects.names.push(name),
            None => self.objects.push(Objects {
                kind,
                namespace,
                names: vec![name],
                label_selector: None,
                field_selector: None,
            }),
        }
    }

    /// The objects, where nothing may be wrong with any manifest.
    pub fn complete(mut self) -> anyhow::Result<Vec<Objects>> {
        match self.problems.is_empty() {
            true => Ok(self.objects),
            false => Err(self.problems.remove(0)),
        }
    }
}

impl Objects {
    /// The path of the object `name`.
    pub fn object_path(&self, name: &str) -> anyhow::Result<String> {
        Ok(object_path(&self.kind, self.namespace.as_deref().unwrap_or_default(), name)?)
    }

    /// The path of the list, selectors included.
    pub fn list_path(&self) -> String {
        let mut query = Vec::new();
        query.extend(self.label_selector.as_deref().map(|selector| ("labelSelector", selector)));
        query.extend(self.field_selector.as_deref().map(|selector| ("fieldSelector", selector)));
        with_query(&resource_path(&self.kind, self.namespace.as_deref()), &query)
    }

    /// The paths to ask: one per name, or the list.
    pub fn paths(&self) -> anyhow::Result<Vec<String>> {
        match self.names.is_empty() {
            true => Ok(vec![self.list_path()]),
            false => self.names.iter().map(|name| self.object_path(name)).collect(),
        }
    }

    /// The objects of the list.
    pub async fn list(&self, cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
        match cluster.get(&self.list_path()).await?["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cluster::fake::FakeServer;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    fn file(text: &str) -> (tempfile::NamedTempFile, FileArgs) {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("writable");
        let args = FileArgs { filename: vec![file.path().to_owned()], recursive: false };
        (file, args)
    }

    async fn resolve(query: &ObjectQuery<'_>) -> anyhow::Result<Resolved> {
        query.resolve(&FakeServer::new([]).cluster("default")).await
    }

    async fn refusal(query: &ObjectQuery<'_>) -> String {
        resolve(query).await.expect_err("refused").to_string()
    }

    fn paths(resolved: &Resolved) -> Vec<String> {
        resolved.objects.iter().flat_map(|objects| objects.paths().expect("valid names")).collect()
    }

    #[tokio::test]
    async fn a_manifest_names_its_own_namespace() {
        let (_file, files) = file(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: other}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {name: b}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {name: c, namespace: other}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n",
        );
        let resolved = resolve(&ObjectQuery { files: Some(&files), ..ObjectQuery::default() }).await.expect("valid");
        assert_eq!(
            paths(&resolved),
            [
                "/api/v1/namespaces/other/pods/a",
                "/api/v1/namespaces/other/pods/c",
                "/api/v1/namespaces/default/pods/b",
                "/api/v1/nodes/node-1"
            ]
        );
    }

    #[tokio::test]
    async fn a_manifest_without_a_name_is_told_and_the_others_are_found() {
        let (_file, files) = file(
            "apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}\n---\napiVersion: v1\nkind: Pod\nmetadata: \
              {name: b}\n",
        );
        let resolved = resolve(&ObjectQuery { files: Some(&files), ..ObjectQuery::default() }).await.expect("readable");
        assert_eq!(paths(&resolved), ["/api/v1/namespaces/default/pods/b"]);
        let told: Vec<String> = resolved.problems.iter().map(ToString::to_string).collect();
        assert!(told.len() == 1 && told[0].ends_with("document 1, line 1: resource name may not be empty"), "{told:?}");
    }

    #[tokio::test]
    async fn names_do_not_go_with_all_namespaces_or_selectors() {
        let named = words("pod a");
        let query = ObjectQuery { words: &named, ..ObjectQuery::default() };
        assert_eq!(
            refusal(&ObjectQuery { all_namespaces: true, ..query }).await,
            "a resource cannot be retrieved by name across all namespaces"
        );
        for contradiction in [
            ObjectQuery { label_selector: Some("a=b"), ..query },
            ObjectQuery { field_selector: Some("a=b"), ..query },
            ObjectQuery { all: true, ..query },
        ] {
            let told = refusal(&contradiction).await;
            assert_eq!(told, "name cannot be provided when a selector or --all is specified");
        }
    }

    #[tokio::test]
    async fn files_do_not_go_with_words_selectors_or_all_namespaces() {
        let (_file, files) = file("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n");
        let query = ObjectQuery { files: Some(&files), ..ObjectQuery::default() };
        let more = words("pod b");
        assert!(refusal(&ObjectQuery { words: &more, ..query }).await.contains("may not be given as well: pod b"));
        assert!(refusal(&ObjectQuery { label_selector: Some("a=b"), ..query }).await.contains("selector"));
        assert!(refusal(&ObjectQuery { all: true, ..query }).await.contains("--all"));
        assert!(refusal(&ObjectQuery { all_namespaces: true, ..query }).await.contains("across all namespaces"));
    }

    #[tokio::test]
    async fn a_type_alone_is_for_each_verb_to_allow() {
        let pods = words("pods");
        let query = ObjectQuery { words: &pods, ..ObjectQuery::default() };
        assert_eq!(paths(&resolve(&query).await.expect("all")), ["/api/v1/namespaces/default/pods"]);
        let selected = ObjectQuery { unnamed: WithoutNames::OnlySelected, ..query };
        assert!(refusal(&selected).await.starts_with("resource(s) were provided, but no name was specified"));
        let everywhere = ObjectQuery { label_selector: Some("a=b"), all_namespaces: true, ..selected };
        assert_eq!(paths(&resolve(&everywhere).await.expect("selected")), ["/api/v1/pods?labelSelector=a%3Db"]);
        assert!(refusal(&ObjectQuery { all: true, ..everywhere }).await.contains("cannot be given together"));
        assert_eq!(
            refusal(&ObjectQuery { unnamed: WithoutNames::Refused, ..query }).await,
            "name what is meant: pod/NAME"
        );
    }

    #[tokio::test]
    async fn an_empty_name_is_refused() {
        let empty = ["pod".to_owned(), String::new()];
        let told = refusal(&ObjectQuery { words: &empty, ..ObjectQuery::default() }).await;
        assert_eq!(told, "resource name may not be empty");
    }
}
