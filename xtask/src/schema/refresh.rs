//! Definitions into the lines of the data files, whose format `control/kinds/src/schema/text.rs` describes.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, bail};
use serde_json::Value;

/// Writes the files in `directory` anew: what `definitions` say, and what stood there otherwise.
pub fn refresh(directory: &Path, definitions: &BTreeMap<String, Value>) -> anyhow::Result<()> {
    let mut files: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for file in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.insert(name, entries(&text));
    }
    for (name, definition) in definitions {
        let short = short(name);
        match files.values_mut().flatten().find(|entry| entry.name == short) {
            Some(entry) => entry.refresh(definition)?,
            None => {
                let mut entry = Entry { name: short.clone(), ..Entry::default() };
                entry.refresh(definition)?;
                let package = short.rsplit_once('.').map_or("", |(package, _)| package);
                files.entry(format!("{package}.schema")).or_default().push(entry);
            }
        }
    }
    let mut unnumbered = Vec::new();
    for (name, mut entries) in files {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let text: String = entries.iter().map(Entry::lines).collect();
        unnumbered.extend(entries.iter().flat_map(Entry::unnumbered));
        let path = directory.join(&name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !unnumbered.is_empty() {
        bail!(
            "write the protobuf numbers of new fields in the place of `?`, with `?` or `!` after their types: {}",
            unnumbered.join(", ")
        );
    }
    Ok(())
}

/// One type.
#[derive(Default)]
struct Entry {
    name: String,
    /// `atomic`, `= time`
    attributes: Vec<String>,
    description: String,
    fields: BTreeMap<String, Field>,
}

#[derive(Clone)]
struct Field {
    number: String,
    r#type: String,
    /// `?`, `!` or nothing: what zero means.
    zero: String,
    attributes: Vec<String>,
    description: String,
}

impl Entry {
    fn refresh(&mut self, definition: &Value) -> anyhow::Result<()> {
        self.description = escaped(definition["description"].as_str().unwrap_or_default());
        let required: Vec<&str> =
            definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut fields = BTreeMap::new();
        for (name, schema) in definition["properties"].as_object().into_iter().flatten() {
            // The envelope of a kind is no part of its message.
            let envelope = definition["properties"]["metadata"].is_object();
            let number = if envelope && matches!(name.as_str(), "apiVersion" | "kind") { "-" } else { "?" };
            let new = Field {
                number: number.into(),
                r#type: String::new(),
                zero: String::new(),
                attributes: Vec::new(),
                description: String::new(),
            };
            let mut field = self.fields.remove(name).unwrap_or(new);
            field.r#type = type_of(schema).with_context(|| format!("{}.{name}", self.name))?;
            field.description = escaped(schema["description"].as_str().unwrap_or_default());
            field.attributes.retain(|attribute| attribute != "required");
            if required.contains(&name.as_str()) {
                field.attributes.insert(0, "required".into());
            }
            fields.insert(name.clone(), field);
        }
        self.fields = fields;
        Ok(())
    }

    fn lines(&self) -> String {
        let head = [std::slice::from_ref(&self.name), &self.attributes].concat().join(" ");
        let mut out = line("", head, &self.description);
        for (name, field) in &self.fields {
            let Field { number, r#type, zero, attributes, description } = field;
            let head = [vec![name.clone(), number.clone(), format!("{}{zero}", r#type)], attributes.clone()]
                .concat()
                .join(" ");
            out.push_str(&line("  ", head, description));
        }
        out
    }

    fn unnumbered(&self) -> Vec<String> {
        let unnumbered = self.fields.iter().filter(|(_, field)| field.number == "?");
        unnumbered.map(|(name, _)| format!("{}.{name}", self.name)).collect()
    }
}

fn line(indent: &str, head: String, description: &str) -> String {
    match description {
        "" => format!("{indent}{head}\n"),
        description => format!("{indent}{head} | {description}\n"),
    }
}

/// The types of one file.
fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (head, description) = line.split_once('|').unwrap_or((line, ""));
        let mut words = head.split_whitespace().map(str::to_owned);
        let name = words.next().unwrap_or_default();
        let description = description.trim().to_owned();
        match (line.starts_with(' '), entries.last_mut()) {
            (true, Some(entry)) => {
                let (number, r#type) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                let zero = r#type.trim_start_matches(|c| c != '?' && c != '!').to_owned();
                let field = Field { number, r#type, zero, attributes: words.collect(), description };
                entry.fields.insert(name, field.without_mark());
            }
            _ => entries.push(Entry { name, attributes: words.collect(), description, fields: BTreeMap::new() }),
        }
    }
    entries
}

impl Field {
    /// The type without what zero means, which stands apart.
    fn without_mark(mut self) -> Self {
        self.r#type.truncate(self.r#type.len() - self.zero.len());
        self
    }
}

/// A JSON schema as a type of the data files.
fn type_of(schema: &Value) -> anyhow::Result<String> {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    if let Some(reference) = reference {
        return Ok(short(reference.rsplit('/').next().unwrap_or_default()));
    }
    Ok(match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("array"), _) => format!("[]{}", type_of(&schema["items"])?),
        (Some("object"), _) => format!("{{}}{}", type_of(&schema["additionalProperties"])?),
        (Some("boolean"), _) => "bool".into(),
        (Some("integer"), Some(width)) => width.into(),
        (Some("number"), _) => "double".into(),
        (Some("string"), Some("byte")) => "bytes".into(),
        (Some("string"), None) => "string".into(),
        other => bail!("unknown type {other:?}"),
    })
}

/// `core.v1.Pod` of `io.k8s.api.core.v1.Pod`.
fn short(name: &str) -> String {
    let prefixes = [
        "io.k8s.apimachinery.pkg.apis.",
        "io.k8s.apimachinery.pkg.api.",
        "io.k8s.apimachinery.pkg.util.",
        "io.k8s.apimachinery.pkg.",
        "io.k8s.apiextensions-apiserver.pkg.apis.",
        "io.k8s.kube-aggregator.pkg.apis.",
        "io.k8s.api.",
    ];
    prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name).to_owned()
}

fn escaped(text: &str) -> String {
    text.trim().replace('\\', "\\\\").replace('\n', "\\n")
}
