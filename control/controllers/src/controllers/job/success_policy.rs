//! Whether enough indexes have succeeded for an indexed Job to succeed early. Source: KEP-3998.

use super::{
    indexes::Indexes,
    terms::{Terms, number},
};

/// The message of the condition, if a rule of the policy is met.
pub fn met(terms: &Terms, succeeded: &Indexes) -> Option<String> {
    let policy = terms.spec.success_policy.as_ref().filter(|_| !succeeded.is_empty())?;
    let rule = policy.rules.iter().position(|rule| {
        let enough = |found: usize| rule.succeeded_count.is_some_and(|count| found >= number(count));
        match &rule.succeeded_indexes {
            Some(text) => {
                let required = Indexes::parse(text, terms.indexes());
                let found = required.overlap(succeeded);
                !required.is_empty() && (found == required.len() || enough(found))
            }
            None => enough(succeeded.len()),
        }
    })?;
    Some(format!("Matched rules at index {rule}"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;
    use serde_json::{Value, json};

    use super::*;

    fn decide(rules: Value, succeeded: &str) -> Option<String> {
        let job: Job = serde_json::from_value(json!({"spec": {"template": {}, "completionMode": "Indexed",
            "completions": 10, "successPolicy": {"rules": rules}}}))
        .expect("a valid Job");
        met(&Terms::of(&job).expect("known terms"), &Indexes::parse(succeeded, 10))
    }

    #[test]
    fn a_rule_is_met_by_all_its_indexes_or_by_enough_of_them() {
        let first = Some("Matched rules at index 0".to_owned());
        let second = Some("Matched rules at index 1".to_owned());
        for (rules, succeeded, expected) in [
            (json!([{"succeededIndexes": "0-2"}]), "0-2,5", first.clone()),
            (json!([{"succeededIndexes": "0-2"}]), "0,1,5", None),
            (json!([{"succeededIndexes": "0-2,8", "succeededCount": 2}]), "2,8", first.clone()),
            (json!([{"succeededIndexes": "0-2", "succeededCount": 2}]), "2,8,9", None),
            (json!([{"succeededCount": 3}]), "2,8,9", first.clone()),
            (json!([{"succeededCount": 3}]), "2,8", None),
            (json!([{"succeededIndexes": "x"}, {"succeededCount": 1}]), "2", second.clone()),
            (json!([{"succeededIndexes": "7"}, {"succeededIndexes": "2"}]), "2", second),
            (json!([{"succeededCount": 0}]), "", None),
        ] {
            assert_eq!(decide(rules.clone(), succeeded), expected, "{rules} {succeeded}");
        }
    }
}
