//! What a client is told whose configuration disagrees with fields that others own.

use serde_json::{Value, json};

use super::{
    path::{PathElement, display},
    set::FieldSet,
};
use crate::status::Status;

/// Fields that are another manager's.
#[derive(Clone, Debug)]
pub struct Conflict<'a> {
    /// The other manager, as messages name it.
    pub manager: String,
    /// What it owns of what would change.
    pub fields: FieldSet<'a>,
}

/// The 409 that names every conflict.
pub fn status(mut conflicts: Vec<Conflict<'_>>) -> Status {
    conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
    let all: Vec<(&str, Vec<PathElement<'_>>)> = conflicts
        .iter()
        .flat_map(|conflict| conflict.fields.paths().into_iter().map(|path| (&*conflict.manager, path)))
        .collect();
    let causes: Vec<Value> = all
        .iter()
        .map(|(manager, path)| {
            json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"),
                "field": display(path)})
        })
        .collect();
    let message = match &all[..] {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {}", display(path)),
        several => {
            let mut lines = Vec::new();
            let mut last = "";
            for (manager, path) in several {
                if *manager != last {
                    lines.push(format!("conflicts with {manager}:"));
                    last = manager;
                }
                lines.push(format!("- {}", display(path)));
            }
            format!("Apply failed with {} conflicts: {}", several.len(), lines.join("\n"))
        }
    };
    Status { code: 409, reason: "Conflict", message, details: Some(json!({"causes": causes})) }
}

#[cfg(test)]
mod tests {
    use super::{super::fields_v1, *};

    #[test]
    fn one_conflict_is_told_in_a_line_and_several_by_manager() {
        let conflict = |manager: &str, fields: &'static str| Conflict {
            manager: manager.to_owned(),
            fields: fields_v1::parse(fields).unwrap(),
        };
        let one = status(vec![conflict("\"a\" using apps/v1", r#"{"f:spec":{"f:replicas":{}}}"#)]);
        assert_eq!(one.message, "Apply failed with 1 conflict: conflict with \"a\" using apps/v1: .spec.replicas");
        let cause = &one.details.unwrap()["causes"][0];
        let expected = json!({"reason": "FieldManagerConflict", "message": "conflict with \"a\" using apps/v1",
            "field": ".spec.replicas"});
        assert_eq!(*cause, expected);
        let several = status(vec![
            conflict("\"b\"", r#"{"f:data":{"f:x":{},"f:y":{}}}"#),
            conflict("\"a\"", r#"{"f:data":{"f:z":{}}}"#),
        ]);
        assert_eq!(
            several.message,
            "Apply failed with 3 conflicts: conflicts with \"a\":\n- .data.z\nconflicts with \"b\":\n- .data.x\n- .data.y"
        );
        assert_eq!((several.code, several.reason), (409, "Conflict"));
    }
}
