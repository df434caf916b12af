//! `fairlead get`: shows objects, as a table or as data, once or as they change.

use anyhow::bail;
use serde_json::{Value, json};

use super::objects::{ObjectQuery, Objects};
use crate::{
    cluster::{
        ApiError, Cluster, ConnectArgs, Representation, Scope, TABLE, Watch, WatchChange, connect, field_equals,
    },
    failure::{self, AlreadyReported, ErrorWithHint},
    manifest::FileArgs,
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
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// wide, json, yaml, name, jsonpath=TEMPLATE, custom-columns=HEAD:PATH,…
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    /// Go on showing objects as they change
    #[arg(short, long)]
    watch: bool,
    /// Show changes from now on, without what there is already
    #[arg(long)]
    watch_only: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects whose labels match: app=web, 'tier in (a, b)', '!canary'
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Only objects whose fields match: status.phase=Running, spec.nodeName=NODE
    #[arg(long, value_name = "FIELDS")]
    field_selector: Option<String>,
    /// A last column with the labels
    #[arg(long)]
    show_labels: bool,
    /// Columns with the values of these labels
    #[arg(short = 'L', long, value_name = "LABEL", value_delimiter = ',')]
    label_columns: Vec<String>,
    /// No header line
    #[arg(long)]
    no_headers: bool,
    /// No error when a named object is not there
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Get {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let cluster = connect(&self.connect).await?;
        let found = self.query().resolve(&cluster).await?;
        for problem in &found.problems {
            eprintln!("{}", failure::describe(problem));
        }
        let failed = !found.problems.is_empty();
        if self.watch || self.watch_only {
            if failed {
                return Err(AlreadyReported.into());
            }
            let [objects] = &found.objects[..] else {
                return Err(ErrorWithHint::new(
                    "only one resource type can be watched",
                    "for instance: fairlead get pods -w",
                )
                .into());
            };
            return self.follow(&cluster, objects).await;
        }
        match &self.output {
            None | Some(Format::Wide) => self.tables(&cluster, &found.objects, failed).await,
            Some(format) => self.data(&cluster, &found.objects, format, failed).await,
        }
    }

    fn query(&self) -> ObjectQuery<'_> {
        ObjectQuery {
            words: &self.resources,
            files: Some(&self.files),
            all_namespaces: self.all_namespaces,
            label_selector: self.selector.as_deref(),
            field_selector: self.field_selector.as_deref(),
            ..ObjectQuery::default()
        }
    }

    /// Asks for the objects; what does not exist is reported, the rest is returned.
    async fn ask(
        &self,
        cluster: &Cluster,
        objects: &Objects,
        accept: &str,
        failed: &mut bool,
    ) -> anyhow::Result<Vec<Value>> {
        let mut answers = Vec::new();
        for path in objects.paths()? {
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

    async fn tables(&self, cluster: &Cluster, found: &[Objects], mut failed: bool) -> anyhow::Result<()> {
        let several = found.iter().any(|objects| objects.kind != found[0].kind);
        let mut shown = 0;
        for objects in found {
            let mut table = Table::default();
            for answer in self.ask(cluster, objects, TABLE, &mut failed).await? {
                table.add(&answer);
            }
            if table.is_empty() {
                continue;
            }
            if shown > 0 {
                println!();
            }
            shown += 1;
            print!("{}", table.grid(&self.style(objects, several)).render());
        }
        if failed {
            return Err(AlreadyReported.into());
        }
        let all_named = found.iter().all(|objects| !objects.names.is_empty());
        if shown == 0 && !all_named {
            let cluster_wide = self.all_namespaces || found.iter().all(|objects| !objects.kind.namespaced);
            match cluster_wide {
                true => eprintln!("No resources found"),
                false => eprintln!("No resources found in {} namespace.", cluster.namespace()),
            }
        }
        Ok(())
    }

    fn style(&self, objects: &Objects, several: bool) -> TableStyle {
        TableStyle {
            wide: matches!(self.output, Some(Format::Wide)),
            headers: !self.no_headers,
            namespace: self.all_namespaces && objects.kind.namespaced,
            labels: self.show_labels,
            label_columns: self.label_columns.clone(),
            prefix: if several { format!("{}/", objects.kind.qualified_singular()) } else { String::new() },
        }
    }

    async fn data(
        &self,
        cluster: &Cluster,
        found: &[Objects],
        format: &Format,
        mut failed: bool,
    ) -> anyhow::Result<()> {
        let mut objects: Vec<(String, Value)> = Vec::new();
        let mut lists = false;
        for asked in found {
            for mut answer in self.ask(cluster, asked, "application/json", &mut failed).await? {
                let Some(items) = answer.get_mut("items").and_then(Value::as_array_mut) else {
                    objects.push((asked.kind.named(name_of(&answer)), answer));
                    continue;
                };
                lists = true;
                for mut item in items.drain(..) {
                    // Items of a typed list come without their type.
                    if item["kind"].is_null() {
                        item["kind"] = json!(asked.kind.kind);
                        item["apiVersion"] = json!(asked.kind.api_version());
                    }
                    objects.push((asked.kind.named(name_of(&item)), item));
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

    /// Shows what there is, then every change, until the user ends it or the server refuses to go on.
    async fn follow(&self, cluster: &Cluster, objects: &Objects) -> anyhow::Result<()> {
        if objects.names.len() > 1 {
            bail!("watch of several names is not possible: use a selector");
        }
        let by_name = objects.names.first().map(|name| field_equals("metadata.name", name));
        let scope = Scope {
            namespace: objects.namespace.as_deref(),
            label_selector: objects.label_selector.as_deref(),
            field_selector: by_name.as_deref().or(objects.field_selector.as_deref()),
        };
        let representation = match self.output {
            None | Some(Format::Wide) => Representation::Table,
            Some(_) => Representation::Object,
        };
        let mut printer = WatchPrinter::new(self.style(objects, false), self.output.as_ref(), objects);
        let mut watch = Watch::new(cluster, &objects.kind, &scope, representation);
        loop {
            match watch.next().await? {
                WatchChange::Listed(found) if found.is_empty() && by_name.is_some() => {
                    return Err(ApiError::not_found(&objects.kind, &objects.names[0]).into());
                }
                WatchChange::Listed(_) if self.watch_only => {}
                WatchChange::Listed(found) => printer.show(found)?,
                WatchChange::Applied(object) | WatchChange::Deleted(Some(object)) => printer.show(vec![object])?,
                WatchChange::Deleted(None) => {}
            }
        }
    }
}

/// Prints the frames of one watch, the header only before the first rows.
struct WatchPrinter<'a> {
    table: Table,
    style: TableStyle,
    widths: Vec<usize>,
    format: Option<&'a Format>,
    objects: &'a Objects,
}

impl<'a> WatchPrinter<'a> {
    fn new(style: TableStyle, format: Option<&'a Format>, objects: &'a Objects) -> Self {
        let format = format.filter(|format| !matches!(format, Format::Wide));
        Self { table: Table::default(), style, widths: Vec::new(), format, objects }
    }

    fn show(&mut self, frames: Vec<Value>) -> anyhow::Result<()> {
        match self.format {
            Some(format) => self.show_data(format, frames)?,
            None => self.show_rows(frames),
        }
        Ok(std::io::Write::flush(&mut std::io::stdout())?)
    }

    fn show_data(&self, format: &Format, frames: Vec<Value>) -> anyhow::Result<()> {
        for mut object in frames {
            // Items of a typed list come without their type.
            if object["kind"].is_null() {
                object["kind"] = json!(self.objects.kind.kind);
                object["apiVersion"] = json!(self.objects.kind.api_version());
            }
            if matches!(format, Format::Yaml) {
                println!("---");
            }
            output::print_object(format, &object, &self.objects.kind.named(name_of(&object)))?;
        }
        Ok(())
    }

    fn show_rows(&mut self, frames: Vec<Value>) {
        self.table.clear();
        frames.iter().for_each(|frame| self.table.add(frame));
        if !self.table.is_empty() {
            print!("{}", self.table.grid(&self.style).render_from(&mut self.widths));
            self.style.headers = false;
        }
    }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
