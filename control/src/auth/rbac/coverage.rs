//! Whether some rules allow no more than others: what somebody may grant.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;

/// How many single permissions are compared. A role with more is refused to everyone who would be compared: its rules
/// multiply verbs, groups, resources and names.
const MOST: usize = 1 << 17;

/// What is allowed by `asked` and not by `own`, in few rules; an error if there is too much to compare.
pub fn covers(own: &[Rule], asked: &[Rule]) -> Result<Vec<Rule>, TooLarge> {
    let size = asked.iter().fold(0usize, |sum, rule| sum.saturating_add(size(rule)));
    if size > MOST {
        return Err(TooLarge { permissions: size });
    }
    let missing = asked.iter().flat_map(single_permissions).filter(|part| !own.iter().any(|rule| rule.covers(part)));
    Ok(compact(missing))
}

/// Rules that allow too many single permissions to be compared.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the rules allow {permissions} single permissions, and at most {MOST} can be compared")]
pub struct TooLarge {
    permissions: usize,
}

fn size(rule: &Rule) -> usize {
    let names = rule.resource_names.len().max(1);
    let on_resources = rule.api_groups.len().saturating_mul(rule.resources.len()).saturating_mul(names);
    on_resources.saturating_add(rule.non_resource_urls.len()).saturating_mul(rule.verbs.len())
}

/// The same permissions as rules with one verb on one resource, of one name, or on one path.
fn single_permissions(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let names: Vec<Vec<String>> = match rule.resource_names.is_empty() {
        true => vec![Vec::new()],
        false => rule.resource_names.iter().map(one).collect(),
    };
    let mut parts = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                parts.extend(names.iter().map(|names| Rule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: names.clone(),
                    ..Rule::default()
                }));
            }
        }
    }
    for path in &rule.non_resource_urls {
        let of = |verb| Rule { verbs: one(verb), non_resource_urls: one(path), ..Rule::default() };
        parts.extend(rule.verbs.iter().map(of));
    }
    parts
}

/// Joins the verbs of rules that are about the same resource.
fn compact(parts: impl Iterator<Item = Rule>) -> Vec<Rule> {
    let mut by_resource: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    let mut rules = BTreeSet::new();
    for mut part in parts {
        if part.resources.is_empty() {
            rules.insert(part);
            continue;
        }
        let verbs = std::mem::take(&mut part.verbs);
        by_resource.entry(part).or_default().extend(verbs);
    }
    let joined = by_resource.into_iter().map(|(rule, verbs)| Rule { verbs, ..rule });
    rules.into_iter().chain(joined).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn missing(own: Value, asked: Value) -> Vec<String> {
        let rules = |list: Value| Rule::all_of(&json!({"rules": list}));
        let mut texts: Vec<String> = covers(&rules(own), &rules(asked)).unwrap().iter().map(Rule::to_string).collect();
        texts.sort();
        texts
    }

    fn on(resources: &[&str], verbs: &[&str]) -> Value {
        json!({"verbs": verbs, "apiGroups": [""], "resources": resources})
    }

    #[test]
    fn rules_cover_what_they_allow_together() {
        let own = json!([on(&["pods"], &["get", "list"]), on(&["services"], &["get"]), on(&["*/log"], &["get"])]);
        assert!(missing(own.clone(), json!([on(&["pods", "services"], &["get"])])).is_empty());
        assert!(missing(own.clone(), json!([on(&["pods/log"], &["get"])])).is_empty());
        assert_eq!(
            missing(own, json!([on(&["pods", "services"], &["get", "list", "watch"])])),
            [
                "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"watch\"]}",
                "{APIGroups:[\"\"], Resources:[\"services\"], Verbs:[\"list\" \"watch\"]}",
            ]
        );
        let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        assert!(missing(all.clone(), json!([on(&["*"], &["*"])])).is_empty());
        assert_eq!(missing(json!([on(&["pods"], &["get"])]), all).len(), 1);
    }

    #[test]
    fn a_rule_with_names_covers_only_these() {
        let named = |names: &[&str]| json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": names}]);
        assert!(missing(named(&["a", "b"]), named(&["b"])).is_empty());
        assert_eq!(missing(named(&["a"]), named(&["a", "b"])).len(), 1);
        assert_eq!(missing(named(&["a"]), json!([on(&["secrets"], &["get"])])).len(), 1);
        assert!(missing(json!([on(&["secrets"], &["get"])]), named(&["a"])).is_empty());
    }

    #[test]
    fn paths_are_covered_by_patterns() {
        let paths = |list: &[&str]| json!([{"verbs": ["get"], "nonResourceURLs": list}]);
        assert!(missing(paths(&["/api/*"]), paths(&["/api/v1", "/api/*"])).is_empty());
        assert_eq!(missing(paths(&["/api/*"]), paths(&["/apis"])), ["{NonResourceURLs:[\"/apis\"], Verbs:[\"get\"]}"]);
    }

    #[test]
    fn rules_that_multiply_too_far_are_refused() {
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let rule = Rule {
            verbs: many.clone(),
            api_groups: many.clone(),
            resources: many.clone(),
            resource_names: many,
            ..Rule::default()
        };
        assert!(covers(&[], &[rule]).unwrap_err().to_string().contains("100000000 single permissions"));
    }
}
