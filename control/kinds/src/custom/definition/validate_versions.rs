//! Why the versions of a definition may not stand, with the paths of `apiextensions-apiserver`: what all versions have
//! in common is named at the top of the spec.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::validate_schema;
use crate::{
    custom::structural::{Structural, field_path},
    kinds::{FieldError, names},
};

/// Every reason why the versions may not stand: those about single versions, and those about what all have in common.
pub fn versions(spec: &Value, old: Option<&Value>) -> (Vec<FieldError>, Vec<FieldError>) {
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let common = |field: &str| versions.windows(2).all(|pair| pair[0][field] == pair[1][field]);
    let old_versions = || old.and_then(|old| old["versions"].as_array()).into_iter().flatten();
    let old_schemas: HashMap<&Value, &Value> =
        old_versions().map(|version| (&version["name"], &version["schema"])).collect();
    let mut parts = Parts {
        schema: common("schema"),
        subresources: common("subresources"),
        columns: common("additionalPrinterColumns"),
        selectable: common("selectableFields"),
        of_all: Vec::new(),
    };
    let mut errors: Vec<FieldError> = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            errors.push(FieldError::required(format!("spec.versions[{index}].schema.openAPIV3Schema"), ""));
        }
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        errors.extend(name(format!("{path}.name"), version));
        errors.extend(deprecation(&path, version));
        let is_unchanged = old_schemas.get(&version["name"]).is_some_and(|schema| **schema == version["schema"]);
        errors.extend(parts.of_version(index, version, is_unchanged));
    }
    let all = &spec["versions"];
    let mut names = HashSet::new();
    let unique = versions.iter().all(|version| names.insert(&version["name"]));
    if !unique {
        errors.push(FieldError::invalid("spec.versions", all, "must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", all, why));
    }
    // The first version stands once more in a field of its own, which older clients read.
    let first = versions.first().filter(|version| version["name"].as_str().is_some_and(|name| !name.is_empty()));
    errors.extend(first.and_then(|version| name("spec.version".to_owned(), version)));
    (errors, parts.of_all)
}

fn name(path: String, version: &Value) -> Option<FieldError> {
    let name = version["name"].as_str().unwrap_or_default();
    let why = names::label_1035(name);
    (!why.is_empty()).then(|| FieldError::invalid(path, &json!(name), why.join(",")))
}

/// Which parts all versions have in common, and what is wrong with these.
struct Parts {
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
    of_all: Vec<FieldError>,
}

impl Parts {
    /// What is wrong with the parts of one version. Those in common are looked at with the first.
    fn of_version(&mut self, index: usize, version: &Value, is_unchanged: bool) -> Vec<FieldError> {
        let mut own = Vec::new();
        let mut add = |is_common: bool, top: &str, part: &str, check: &dyn Fn(&str) -> Vec<FieldError>| match is_common
        {
            true if index == 0 => self.of_all.extend(check(&format!("spec.{top}"))),
            true => {}
            false => own.extend(check(&format!("spec.versions[{index}].{part}"))),
        };
        let text = &version["schema"]["openAPIV3Schema"];
        if text.is_object() {
            let has_status = version["subresources"]["status"].is_object();
            let options = validate_schema::Options { has_status, is_unchanged };
            add(self.schema, "validation", "schema", &|at| {
                validate_schema::validate(&format!("{at}.openAPIV3Schema"), text, &options)
            });
        }
        add(self.subresources, "subresources", "subresources", &|at| scale(at, &version["subresources"]["scale"]));
        add(self.columns, "additionalPrinterColumns", "additionalPrinterColumns", &|at| {
            let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten().enumerate();
            columns.flat_map(|(index, column)| printer_column(&format!("{at}[{index}]"), column)).collect()
        });
        add(self.selectable, "selectableFields", "selectableFields", &|at| {
            selectable_fields(at, &version["selectableFields"], &Structural::read(text))
        });
        own
    }
}

fn deprecation(path: &str, version: &Value) -> Vec<FieldError> {
    let Some(warning) = version["deprecationWarning"].as_str() else { return Vec::new() };
    let unprintable = warning.chars().position(char::is_control);
    let reasons = if version["deprecated"] != true {
        vec!["can only be set for deprecated versions".to_owned()]
    } else {
        let unprintable = unprintable.map(|at| {
            format!("must only contain printable UTF-8 characters; non-printable character found at index {at}")
        });
        let long = (warning.len() > 256).then(|| "must be <= 256 characters long".to_owned());
        let empty = warning.is_empty().then(|| "must not be an empty string".to_owned());
        [long, empty, unprintable].into_iter().flatten().collect()
    };
    let at = format!("{path}.deprecationWarning");
    reasons.into_iter().map(|why| FieldError::invalid(&at, &json!(warning), why)).collect()
}

fn simple_path(path: &str, text: &str) -> Option<FieldError> {
    (!text.starts_with('.'))
        .then(|| FieldError::invalid(path, &json!(text), "must be a simple json path starting with ."))
}

fn scale(path: &str, scale: &Value) -> Vec<FieldError> {
    if !scale.is_object() {
        return Vec::new();
    }
    let within = |field: &str, allowed: &[&str], why: &str, required: bool| {
        let at = format!("{path}.scale.{field}");
        match scale[field].as_str().unwrap_or_default() {
            "" if required => Some(FieldError::required(at, "")),
            "" => None,
            text => simple_path(&at, text).or_else(|| {
                let fits = allowed.iter().any(|prefix| text.starts_with(prefix));
                (!fits).then(|| FieldError::invalid(at, &json!(text), why))
            }),
        }
    };
    let either = "should be a json path under either .spec or .status";
    [
        within("specReplicasPath", &[".spec."], "should be a json path under .spec", true),
        within("statusReplicasPath", &[".status."], "should be a json path under .status", true),
        within("labelSelectorPath", &[".spec.", ".status."], either, false),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn printer_column(path: &str, column: &Value) -> Vec<FieldError> {
    const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
    const FORMATS: &[&str] = &["binary", "byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    let mut errors = Vec::new();
    let text = |field: &str| column[field].as_str().unwrap_or_default();
    if text("name").is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    }
    let of_types = format!("must be one of {}", TYPES.join(","));
    match text("type") {
        "" => errors.push(FieldError::required(format!("{path}.type"), &of_types)),
        other if !TYPES.contains(&other) => {
            errors.push(FieldError::invalid(format!("{path}.type"), &json!(other), of_types));
        }
        _ => {}
    }
    if !text("format").is_empty() && !FORMATS.contains(&text("format")) {
        let why = format!("must be one of {}", FORMATS.join(","));
        errors.push(FieldError::invalid(format!("{path}.format"), &column["format"], why));
    }
    let at = format!("{path}.JSONPath");
    match text("jsonPath") {
        "" => errors.push(FieldError::required(at, "")),
        json_path => errors.extend(simple_path(&at, json_path)),
    }
    errors
}

/// Most selectable fields of a version.
const MAX_SELECTABLE: usize = 8;

fn selectable_fields(path: &str, fields: &Value, schema: &Structural) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen: HashSet<String> = HashSet::new();
    for (index, field) in fields.as_array().into_iter().flatten().enumerate() {
        let at = format!("{path}[{index}].jsonPath");
        let text = &field["jsonPath"];
        let invalid = |why: String| FieldError::invalid(&at, text, why);
        let found = match text.as_str().unwrap_or_default() {
            "" => {
                errors.push(FieldError::required(&at, ""));
                continue;
            }
            json_path => field_path::resolve(json_path, schema, false),
        };
        let (shown, found) = match found {
            Ok(found) => found,
            Err(why) => {
                errors.push(invalid(format!("is an invalid path: {why}")));
                continue;
            }
        };
        if shown.split('.').next() == Some("metadata") {
            errors.push(invalid("must not point to fields in metadata".to_owned()));
        }
        if !matches!(found.r#type.as_str(), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
            formats are allowed.";
            errors.push(invalid(why.to_owned()));
        }
        if !seen.insert(shown) {
            errors.push(FieldError::duplicate(&at, text));
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(path, seen.len(), MAX_SELECTABLE));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_by_its_own_path_and_by_the_one_of_all() {
        let version =
            json!({"name": "x-", "storage": true, "additionalPrinterColumns": [{"type": "string", "jsonPath": ".a"}]});
        let paths = |spec: Value| {
            let (own, of_all) = versions(&spec, None);
            own.into_iter().chain(of_all).map(|error| error.path).collect::<Vec<_>>()
        };
        assert_eq!(
            paths(json!({"versions": [version]})),
            [
                "spec.versions[0].schema.openAPIV3Schema",
                "spec.versions[0].name",
                "spec.version",
                "spec.additionalPrinterColumns[0].name"
            ]
        );
    }
}
