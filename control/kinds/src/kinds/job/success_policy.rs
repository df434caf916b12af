//! The success policy of an indexed Job: when it is done before all indexes are.

use serde_json::Value;

use super::indexes;
use crate::kinds::{FieldError, reading::items};

const MAX_RULES: usize = 20;
const MAX_INDEXES: usize = 64 << 10;

/// Reasons against the success policy at `path`, in the spec of an indexed Job.
pub fn validate(path: &str, spec: &Value) -> Vec<FieldError> {
    let rules = &spec["successPolicy"]["rules"];
    let path = format!("{path}.rules");
    let mut errors = Vec::new();
    match items(rules).len() {
        0 => {
            let why = "at least one rules must be specified when the successPolicy is specified";
            errors.push(FieldError::required(&path, why));
        }
        found if found > MAX_RULES => errors.push(FieldError::too_many(&path, found, MAX_RULES)),
        _ => {}
    }
    let completions = spec["completions"].as_i64().unwrap_or_default();
    for (i, rule) in items(rules).enumerate() {
        errors.extend(self::rule(&format!("{path}[{i}]"), rule, completions));
    }
    errors
}

fn rule(path: &str, rule: &Value, completions: i64) -> Vec<FieldError> {
    let (count, named) = (&rule["succeededCount"], &rule["succeededIndexes"]);
    let mut errors = Vec::new();
    if count.is_null() && named.is_null() {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(path, why));
    }
    let mut total = 0;
    if let Some(text) = named.as_str() {
        let path = format!("{path}.succeededIndexes");
        if text.len() > MAX_INDEXES {
            errors.push(FieldError::too_long(&path, MAX_INDEXES));
        }
        match indexes::count(text, completions) {
            Ok(counted) => total = counted,
            Err(why) => {
                let why = format!("error parsing succeededIndexes: {why}");
                errors.push(FieldError::invalid(path, named, why));
            }
        }
    }
    if let Some(wanted) = count.as_i64() {
        let path = format!("{path}.succeededCount");
        errors.extend(FieldError::negative(&path, count));
        if wanted > completions {
            let why = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.push(FieldError::invalid(&path, count, why));
        }
        if !named.is_null() && wanted > total {
            let why = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.push(FieldError::invalid(path, count, why));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(rule: Value) -> Vec<String> {
        let spec = json!({"completions": 5, "successPolicy": {"rules": [rule]}});
        validate("p", &spec).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_rule_names_indexes_or_a_number_of_them() {
        assert_eq!(words(json!({"succeededIndexes": "0-2", "succeededCount": 1})), Vec::<String>::new());
        assert_eq!(
            words(json!({})),
            ["p.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified"]
        );
        assert_eq!(
            words(json!({"succeededIndexes": "1,3", "succeededCount": 3})),
            [
                "p.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)"
            ]
        );
        assert_eq!(
            words(json!({"succeededIndexes": "9"})),
            [
                "p.rules[0].succeededIndexes: Invalid value: \"9\": error parsing succeededIndexes: too large index: \"9\""
            ]
        );
    }
}
