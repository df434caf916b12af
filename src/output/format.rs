//! The formats of `-o`, and one object or list in them.

use std::str::FromStr;

use serde_json::Value;

use super::{
    Grid,
    jsonpath::{Template, TemplateError, text_of},
};
use crate::yaml;

/// A value of `-o`.
#[derive(Clone, Debug)]
pub enum Format {
    Json,
    Yaml,
    /// `deployment.apps/web`
    Name,
    /// A table with all columns.
    Wide,
    JsonPath(Template),
    /// Headings and the paths to their values.
    CustomColumns(Vec<(String, Template)>),
}

/// Why a value of `-o` names no format. clap puts the flag and the value before it.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// No format has this name.
    #[error("one of json, yaml, name, wide, jsonpath=TEMPLATE, jsonpath-file=FILE, custom-columns=HEAD:PATH,…")]
    Unknown,
    /// The template's file cannot be read.
    #[error("cannot read {file}: {cause}")]
    ReadFile {
        /// As it was given.
        file: String,
        /// What the kernel said.
        cause: std::io::Error,
    },
    /// A column without a colon.
    #[error("the column {0} is not HEAD:PATH")]
    Column(String),
    /// No JSONPath.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            "wide" => Ok(Self::Wide),
            _ => match text.split_once('=') {
                Some(("jsonpath", template)) => Ok(Self::JsonPath(template.parse()?)),
                Some(("jsonpath-file", file)) => {
                    let unreadable = |cause| FormatError::ReadFile { file: file.to_owned(), cause };
                    let template = std::fs::read_to_string(file).map_err(unreadable)?;
                    Ok(Self::JsonPath(template.trim_end().parse()?))
                }
                Some(("custom-columns", columns)) => {
                    columns.split(',').map(column).collect::<Result<_, _>>().map(Self::CustomColumns)
                }
                _ => Err(FormatError::Unknown),
            },
        }
    }
}

/// Prints `object` as data. `name` is what `-o name` shows. The bookkeeping of server-side apply is left out, as by
/// kubectl.
pub fn print_object(format: &Format, object: &Value, name: &str) -> anyhow::Result<()> {
    if !matches!(format, Format::Json | Format::Yaml) {
        return print_whole(format, object, name);
    }
    let mut object = object.clone();
    strip_managed_fields(&mut object);
    print_whole(format, &object, name)
}

/// Prints `object` as data with all that the server keeps of it.
pub fn print_whole(format: &Format, object: &Value, name: &str) -> anyhow::Result<()> {
    match format {
        Format::Json => println!("{:#}", IndentedByFour(&yaml::sorted(object))),
        Format::Yaml => print!("{}", yaml::write(object)?),
        Format::Name | Format::Wide => println!("{name}"),
        Format::JsonPath(template) => print!("{}", template.render(object)?),
        Format::CustomColumns(columns) => print!("{}", custom_columns(columns, object).render()),
    }
    Ok(())
}

/// `HEAD:.path`
fn column(text: &str) -> Result<(String, Template), FormatError> {
    let (head, path) = text.split_once(':').ok_or_else(|| FormatError::Column(text.to_owned()))?;
    Ok((head.to_owned(), path.parse()?))
}

/// One row per object, or one per item of a list.
fn custom_columns(columns: &[(String, Template)], object: &Value) -> Grid {
    let mut grid = Grid::default();
    grid.row(columns.iter().map(|(head, _)| head.as_str()));
    let rows = object["items"].as_array().map_or(std::slice::from_ref(object), Vec::as_slice);
    for row in rows {
        grid.uncut_row(columns.iter().map(|(_, path)| {
            let values: Vec<String> = path.values(row).into_iter().map(text_of).collect();
            if values.is_empty() { "<none>".to_owned() } else { values.join(",") }
        }));
    }
    grid
}

fn strip_managed_fields(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.shift_remove("managedFields");
    }
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        strip_managed_fields(item);
    }
}

/// JSON in kubectl's indentation.
struct IndentedByFour<'a>(&'a Value);

impl std::fmt::Display for IndentedByFour<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use serde::Serialize;
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        self.0.serialize(&mut serializer).map_err(|_| std::fmt::Error)?;
        f.write_str(&String::from_utf8_lossy(&bytes))
    }
}
