//! The columns of a custom kind, and the cells of its objects.

use serde_json::Value;

use super::{
    definition::{PrinterColumn, Version},
    json_path::JsonPath,
};
use crate::kinds::{Cell, CellsFn, Column};

/// The columns of a version: the name, and those of the definition, or else the age.
pub fn columns(version: &Version) -> Vec<Column> {
    let own = version.columns.iter().map(|column| {
        let description = match column.description.as_str() {
            "" => format!("Custom resource definition column (in JSONPath format): {}", column.json_path),
            own => own.to_owned(),
        };
        Column {
            name: column.name.clone().into(),
            r#type: column.r#type.clone().into(),
            format: column.format.clone().into(),
            description: description.into(),
            priority: column.priority,
        }
    });
    let name = std::iter::once(Column::name());
    match version.columns.is_empty() {
        true => name.chain([age()]).collect(),
        false => name.chain(own).collect(),
    }
}

/// What a definition without columns of its own shows.
fn age() -> Column {
    Column { r#type: "date".into(), description: AGE.into(), ..Column::age() }
}

const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is \
not \
    guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is \
    represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// Makes the cells of an object of a version.
pub fn cells(version: &Version) -> CellsFn {
    let columns: Vec<(PrinterColumn, Option<JsonPath>)> =
        version.columns.iter().map(|column| (column.clone(), JsonPath::parse(&column.json_path))).collect();
    if columns.is_empty() {
        return std::sync::Arc::new(|object| vec![Cell::name(object), Cell::age(object)]);
    }
    std::sync::Arc::new(move |object| {
        let own = columns.iter().map(|(column, path)| {
            let found = path.as_ref().and_then(|path| path.select(object).into_iter().next());
            found.map_or(Cell::Fixed(Value::Null), |value| cell(&column.r#type, value))
        });
        std::iter::once(Cell::name(object)).chain(own).collect()
    })
}

fn cell(r#type: &str, value: &Value) -> Cell {
    let fixed = match (r#type, value) {
        ("date", Value::String(_)) => {
            let since = Cell::since(value);
            return if matches!(since, Cell::Since { .. }) { since } else { Cell::text("<invalid>") };
        }
        ("string", Value::String(text)) => return Cell::text(text),
        ("string", Value::Null) => return Cell::text(""),
        ("string", other) => return Cell::text(other.to_string()),
        ("integer", Value::Number(number)) => {
            number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)).map(Value::from)
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => Some(value.clone()),
        _ => None,
    };
    Cell::Fixed(fixed.unwrap_or(Value::Null))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::custom::definition::Definition;

    #[test]
    fn cells_are_of_the_type_of_their_column() {
        let column = |name: &str, r#type: &str, path: &str| json!({"name": name, "type": r#type, "jsonPath": path});
        let definition = Definition::read(&json!({"spec": {"versions": [{"name": "v1", "additionalPrinterColumns": [
            column("Size", "integer", ".spec.size"), column("Wrong", "integer", ".spec.name"),
            column("Name", "string", ".spec.name"), column("List", "string", ".spec.list"),
            column("Age", "date", ".metadata.creationTimestamp"), column("Nothing", "string", ".spec.none")]}]}}));
        let version = &definition.versions[0];
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"size": 3, "name": "n", "list": [1, "b"]}});
        let found = cells(version)(&object);
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let shown: Vec<Value> = found.iter().map(|cell| cell.render(now)).collect();
        assert_eq!(json!(shown), json!(["a", 3, null, "n", "[1,\"b\"]", "60s", null]));
        assert_eq!(columns(version).len(), shown.len());
    }
}
