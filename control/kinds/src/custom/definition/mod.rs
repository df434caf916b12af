//! A CustomResourceDefinition as the rest of this program reads it, and what the kind's file declares of it: defaults,
//! what a write changes, validation.

use serde_json::{Value, json};

use super::structural::Structural;

pub mod conditions;
pub mod naming;
pub mod prepare;
mod root_fields;
pub mod validate;
mod validate_conversion;
mod validate_schema;
mod validate_versions;

pub use validate::validate;

/// Where definitions are stored.
pub const RESOURCE: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Keeps a definition whose deletion was asked for until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What a definition says, read once.
#[derive(Clone, Debug)]
pub struct Definition {
    /// `widgets.example.com`
    pub name: String,
    /// `example.com`
    pub group: String,
    /// Whether `spec.scope` is `Namespaced`
    pub namespaced: bool,
    /// The names that were asked for.
    pub names: Names,
    /// The names that nobody else had.
    pub accepted: Names,
    /// In the order of the definition.
    pub versions: Vec<Version>,
    /// `spec.conversion`
    pub conversion: Conversion,
    /// Whether its objects are, or were, served.
    pub established: bool,
    /// Whether its deletion was asked for.
    pub deleting: bool,
}

/// Names of a custom resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `plural`
    pub plural: String,
    /// `singular`
    pub singular: String,
    /// `shortNames`
    pub short_names: Vec<String>,
    /// `kind`
    pub kind: String,
    /// `listKind`
    pub list_kind: String,
    /// `categories`
    pub categories: Vec<String>,
}

/// One version of a custom resource.
#[derive(Clone, Debug)]
pub struct Version {
    /// `metadata.name`: `widgets.example.com`; of a version `v1`; of a column its heading
    pub name: String,
    /// `served`
    pub served: bool,
    /// `storage`
    pub storage: bool,
    /// What every answer warns of.
    pub warning: Option<String>,
    /// `schema`
    pub schema: Structural,
    /// `openAPIV3Schema` as it was written.
    pub schema_text: Value,
    /// `hasStatus`
    pub has_status: bool,
    /// `scale`
    pub scale: Option<Scale>,
    /// `columns`
    pub columns: Vec<PrinterColumn>,
    /// `.spec.color`
    pub selectable: Vec<String>,
}

/// Where the parts of a Scale are within an object: `.spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// `specReplicas`
    pub spec_replicas: String,
    /// `statusReplicas`
    pub status_replicas: String,
    /// `labelSelector`
    pub label_selector: Option<String>,
}

/// One of `additionalPrinterColumns`.
#[derive(Clone, Debug)]
pub struct PrinterColumn {
    /// `metadata.name`: `widgets.example.com`; of a version `v1`; of a column its heading
    pub name: String,
    /// `type`
    pub r#type: String,
    /// `format`
    pub format: String,
    /// `description`
    pub description: String,
    /// `priority`
    pub priority: i32,
    /// `jsonPath`
    pub json_path: String,
}

/// How objects come from one version to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversion {
    /// Only `apiVersion` changes.
    None,
    /// `spec.conversion.webhook`
    Webhook(Value),
}

impl Definition {
    /// Reads a stored definition.
    pub fn read(object: &Value) -> Self {
        let (spec, status) = (&object["spec"], &object["status"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let group = text(&spec["group"]);
        let names = Names::read(&spec["names"]);
        let versions = spec["versions"].as_array().into_iter().flatten();
        let conversion = &spec["conversion"];
        Self {
            name: text(&object["metadata"]["name"]),
            namespaced: spec["scope"] == "Namespaced",
            versions: versions.map(|version| Version::read(version, &group, &names.kind)).collect(),
            group,
            names,
            accepted: Names::read(&status["acceptedNames"]),
            conversion: match conversion["strategy"] == "Webhook" {
                true => Conversion::Webhook(conversion["webhook"].clone()),
                false => Conversion::None,
            },
            established: conditions::is_true(object, "Established"),
            deleting: object["metadata"]["deletionTimestamp"].is_string(),
        }
    }

    /// The version that objects are stored in.
    pub fn storage_version(&self) -> Option<&Version> {
        self.versions.iter().find(|version| version.storage)
    }
}

impl Names {
    fn read(value: &Value) -> Self {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let texts = |field: &str| {
            let list = value[field].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            plural: text("plural"),
            singular: text("singular"),
            short_names: texts("shortNames"),
            kind: text("kind"),
            list_kind: text("listKind"),
            categories: texts("categories"),
        }
    }

    /// As a definition says them.
    pub fn to_json(&self) -> Value {
        let mut names = json!({"plural": self.plural, "kind": self.kind});
        let texts = [("singular", &self.singular), ("listKind", &self.list_kind)];
        for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            names[field] = text.as_str().into();
        }
        let lists = [("shortNames", &self.short_names), ("categories", &self.categories)];
        for (field, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            names[field] = json!(list);
        }
        names
    }
}

impl Version {
    fn read(version: &Value, group: &str, kind: &str) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&version["name"]);
        let schema_text = version["schema"]["openAPIV3Schema"].clone();
        let scale = &version["subresources"]["scale"];
        let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let warning = (version["deprecated"] == true).then(|| match version["deprecationWarning"].as_str() {
            Some(warning) => warning.to_owned(),
            None => format!("{group}/{name} {kind} is deprecated"),
        });
        Self {
            served: version["served"] == true,
            storage: version["storage"] == true,
            warning,
            schema: Structural::read(&schema_text),
            schema_text,
            has_status: version["subresources"]["status"].is_object(),
            scale: scale.is_object().then(|| Scale {
                spec_replicas: text(&scale["specReplicasPath"]),
                status_replicas: text(&scale["statusReplicasPath"]),
                label_selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
            }),
            columns: columns.map(PrinterColumn::read).collect(),
            selectable: selectable.map(|field| text(&field["jsonPath"])).collect(),
            name,
        }
    }
}

impl PrinterColumn {
    fn read(column: &Value) -> Self {
        let text = |field: &str| column[field].as_str().unwrap_or_default().to_owned();
        let priority = column["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok());
        Self {
            name: text("name"),
            r#type: text("type"),
            format: text("format"),
            description: text("description"),
            priority: priority.unwrap_or_default(),
            json_path: text("jsonPath"),
        }
    }
}
