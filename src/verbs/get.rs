//! `fairlead get`: shows objects, as a table or as data, once or as they change.

use anyhow::bail;
use futures::{AsyncBufReadExt, StreamExt};
use serde_json::{Value, json};

use crate::{
    cluster::{
        ApiError, Cluster, ConnectArgs, Selection, TABLE, connect, object_path, resource_path, select, with_query,
    },
    failure::{self, AlreadyReported, Hinted},
    manifest::{self, FileArgs},
    output::{self, Format, Table, TableStyle},
};

/// Show objects: as a table, or with -o as data
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead get pods
  fairlead get deploy,svc -o wide
  fairlead get pod/web-1 svc/web
  fairlead get all -A
  fairlead get pods -l app=web -w
  fairlead get svc web -o jsonpath='{.spec.clusterIP}'")]
pub struct Get {
    /// TYPE, TYPE NAME…, or TYPE/NAME…; several types with commas; `all` for the usual ones
    #[arg(value_name = "RESOURCE")]
    pub resources: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// wide, json, yaml, name, jsonpath=TEMPLATE, custom-columns=HEAD:PATH,…
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Go on showing objects as they change
    #[arg(short, long)]
    pub watch: bool,
    /// Show changes from now on, without what there is already
    #[arg(long)]
    pub watch_only: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects whose labels match: app=web, 'tier in (a, b)', '!canary'
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Only objects whose fields match: status.phase=Running, spec.nodeName=NODE
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,
    /// A last column with the labels
    #[arg(long)]
    pub show_labels: bool,
    /// Columns with the values of these labels
    #[arg(short = 'L', long, value_name = "LABEL", value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// No header line
    #[arg(long)]
    pub no_headers: bool,
    /// No error when a named object is not there
    #[arg(long)]
    pub ignore_not_found: bool,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl Get {
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let selections = self.selections(&cluster).await?;
        let named = selections.iter().any(|s| !s.names.is_empty());
        if named && (self.selector.is_some() || self.field_selector.is_some()) {
            bail!("name cannot be provided when a selector is specified");
        }
        if named && self.all_namespaces {
            bail!("a resource cannot be retrieved by name across all namespaces");
        }
        if self.watch || self.watch_only {
            let [selection] = &selections[..] else {
                return Err(
                    Hinted::new("only one resource type can be watched", "for instance: fairlead get pods -w").into()
                );
            };
            return self.follow(&cluster, selection).await;
        }
        match &self.output {
            None | Some(Format::Wide) => self.tables(&cluster, &selections).await,
            Some(format) => self.data(&cluster, &selections, format).await,
        }
    }

    async fn selections(&self, cluster: &Cluster) -> anyhow::Result<Vec<Selection>> {
        let resources = cluster.resources().await?;
        if self.files.filename.is_empty() {
            return select(resources, &self.resources);
        }
        let mut words = Vec::new();
        for document in manifest::read(&self.files)? {
            let manifest = document?;
            let target = super::target(cluster, &manifest).await?;
            words.push(format!("{}/{}", target.kind.qualified_plural(), manifest.name()));
        }
        select(resources, &words)
    }

    /// Paths to ask: one a name, or the list.
    fn paths(&self, cluster: &Cluster, selection: &Selection) -> Vec<String> {
        let namespace = (!self.all_namespaces).then(|| cluster.namespace());
        if selection.names.is_empty() {
            let mut query = Vec::new();
            query.extend(self.selector.as_deref().map(|s| ("labelSelector", s)));
            query.extend(self.field_selector.as_deref().map(|s| ("fieldSelector", s)));
            // The server's default of 500 a page would only mean more round trips.
            return vec![with_query(&resource_path(&selection.kind, namespace), &query)];
        }
        selection.names.iter().map(|name| object_path(&selection.kind, cluster.namespace(), name)).collect()
    }

    /// Asks for every selection; what is not there is reported, the rest is given.
    async fn ask(
        &self,
        cluster: &Cluster,
        selection: &Selection,
        accept: &str,
        failed: &mut bool,
    ) -> anyhow::Result<Vec<Value>> {
        let mut answers = Vec::new();
        for path in self.paths(cluster, selection) {
            match cluster.get_as(&path, accept).await {
                Ok(answer) => answers.push(answer),
                Err(error) => match error.downcast_ref::<ApiError>() {
                    Some(api) if api.is_not_found() && self.ignore_not_found => {}
                    Some(_) => {
                        eprintln!("{}", failure::describe(&error));
                        *failed = true;
                    }
                    None => return Err(error),
                },
            }
        }
        Ok(answers)
    }

    async fn tables(&self, cluster: &Cluster, selections: &[Selection]) -> anyhow::Result<()> {
        let (mut failed, mut shown) = (false, 0);
        for selection in selections {
            let mut table = Table::default();
            for answer in self.ask(cluster, selection, TABLE, &mut failed).await? {
                table.add(&answer);
            }
            if table.is_empty() {
                continue;
            }
            if shown > 0 {
                println!();
            }
            shown += 1;
            print!("{}", table.grid(&self.style(selection, selections.len() > 1)).render());
        }
        if failed {
            return Err(AlreadyReported.into());
        }
        let all_named = selections.iter().all(|s| !s.names.is_empty());
        if shown == 0 && !all_named {
            let cluster_wide = self.all_namespaces || selections.iter().all(|s| !s.kind.namespaced);
            match cluster_wide {
                true => eprintln!("No resources found"),
                false => eprintln!("No resources found in {} namespace.", cluster.namespace()),
            }
        }
        Ok(())
    }

    fn style(&self, selection: &Selection, several: bool) -> TableStyle {
        TableStyle {
            wide: matches!(self.output, Some(Format::Wide)),
            headers: !self.no_headers,
            namespace: self.all_namespaces && selection.kind.namespaced,
            labels: self.show_labels,
            label_columns: self.label_columns.clone(),
            prefix: if several { format!("{}/", selection.kind.qualified_singular()) } else { String::new() },
        }
    }

    async fn data(&self, cluster: &Cluster, selections: &[Selection], format: &Format) -> anyhow::Result<()> {
        let mut failed = false;
        let mut objects: Vec<(String, Value)> = Vec::new();
        let mut lists = false;
        for selection in selections {
            for mut answer in self.ask(cluster, selection, "application/json", &mut failed).await? {
                let Some(items) = answer.get_mut("items").and_then(Value::as_array_mut) else {
                    objects.push((selection.kind.named(name_of(&answer)), answer));
                    continue;
                };
                lists = true;
                for mut item in items.drain(..) {
                    // Items of a typed list come without their type.
                    if item["kind"].is_null() {
                        item["kind"] = json!(selection.kind.kind);
                        item["apiVersion"] = json!(selection.kind.api_version());
                    }
                    objects.push((selection.kind.named(name_of(&item)), item));
                }
            }
        }
        if let Format::Name = format {
            objects.iter().for_each(|(name, _)| println!("{name}"));
        } else if let ([(name, object)], false) = (&objects[..], lists) {
            output::print_object(format, object, name)?;
        } else if lists || objects.len() > 1 {
            let items: Vec<Value> = objects.into_iter().map(|(_, object)| object).collect();
            let list = json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}});
            output::print_object(format, &list, "")?;
        }
        if failed { Err(AlreadyReported.into()) } else { Ok(()) }
    }

    /// Shows what there is, then every change from that revision on, until the server ends the watch or the user does.
    async fn follow(&self, cluster: &Cluster, selection: &Selection) -> anyhow::Result<()> {
        if selection.names.len() > 1 {
            bail!("watch of several names is not possible: use a selector");
        }
        let namespace = (!self.all_namespaces).then(|| cluster.namespace());
        let list = resource_path(&selection.kind, namespace);
        let by_name = selection.names.first().map(|name| format!("metadata.name={name}"));
        let fields = by_name.as_deref().or(self.field_selector.as_deref());
        let mut query = Vec::new();
        query.extend(self.selector.as_deref().map(|s| ("labelSelector", s)));
        query.extend(fields.map(|s| ("fieldSelector", s)));
        let as_table = matches!(self.output, None | Some(Format::Wide));
        let accept = if as_table { TABLE } else { "application/json" };
        let first = cluster.get_as(&with_query(&list, &query), accept).await?;
        let style = self.style(selection, false);
        let mut watched = Watched { table: Table::default(), style, widths: Vec::new(), kind: selection.kind.clone() };
        let revision = first["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        if !self.watch_only {
            watched.show(&first, self.output.as_ref())?;
        }
        query.extend([("watch", "true"), ("resourceVersion", revision.as_str())]);
        let mut lines = cluster.stream(&with_query(&list, &query), accept).await?.lines();
        while let Some(line) = lines.next().await {
            let mut event: Value = serde_json::from_str(&line?)?;
            match event["type"].as_str() {
                Some("BOOKMARK") => {}
                Some("ERROR") => {
                    return Err(ApiError::from_body(
                        event["object"]["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500),
                        event["object"].to_string().as_bytes(),
                    )
                    .into());
                }
                _ => watched.show(&event["object"].take(), self.output.as_ref())?,
            }
        }
        Ok(())
    }
}

/// Shows the frames of one watch, the header only before the first rows.
struct Watched {
    table: Table,
    style: TableStyle,
    widths: Vec<usize>,
    kind: crate::cluster::ResourceType,
}

impl Watched {
    fn show(&mut self, answer: &Value, format: Option<&Format>) -> anyhow::Result<()> {
        if let Some(format) = format.filter(|format| !matches!(format, Format::Wide)) {
            let objects = answer["items"].as_array().map_or(std::slice::from_ref(answer), Vec::as_slice);
            for object in objects {
                if matches!(format, Format::Yaml) {
                    println!("---");
                }
                output::print_object(format, object, &self.kind.named(name_of(object)))?;
            }
            return Ok(());
        }
        self.table.clear();
        self.table.add(answer);
        if !self.table.is_empty() {
            print!("{}", self.table.grid(&self.style).render_from(&mut self.widths));
            self.style.headers = false;
            std::io::Write::flush(&mut std::io::stdout())?;
        }
        Ok(())
    }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
