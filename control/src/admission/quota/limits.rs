//! What a ResourceQuota says: which amounts, of which objects, and what is used of them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::refusal::QuotaError;
use crate::{
    admission::amounts::{self, Amounts},
    kinds::reading::{as_text, items, text},
};

/// A stored ResourceQuota.
#[derive(Clone, Debug, Default)]
pub struct Quota {
    /// `metadata.name`
    pub name: String,
    /// Objects are counted that are in all of them.
    pub scopes: Vec<QuotaScope>,
    /// `spec.hard`
    pub wanted: Amounts,
    /// `status.hard`: what is in force.
    pub hard: Amounts,
    /// `status.used`
    pub used: Amounts,
}

/// A requirement of an object: of `spec.scopes` or of `spec.scopeSelector`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaScope {
    /// `BestEffort`, `PriorityClass`, …
    pub name: String,
    operator: String,
    values: Vec<String>,
}

impl Quota {
    /// Reads a stored ResourceQuota.
    pub fn read(quota: &Value) -> Self {
        let (spec, status) = (&quota["spec"], &quota["status"]);
        let exists = |scope: &Value| QuotaScope {
            name: as_text(scope).to_owned(),
            operator: "Exists".to_owned(),
            values: Vec::new(),
        };
        let expression = |expression: &Value| QuotaScope {
            name: text(expression, "scopeName").to_owned(),
            operator: text(expression, "operator").to_owned(),
            values: items(&expression["values"]).map(as_text).map(str::to_owned).collect(),
        };
        let selected = items(&spec["scopeSelector"]["matchExpressions"]).map(expression);
        Self {
            name: text(&quota["metadata"], "name").to_owned(),
            scopes: items(&spec["scopes"]).map(exists).chain(selected).collect(),
            wanted: amounts::read(&spec["hard"]),
            hard: amounts::read(&status["hard"]),
            used: amounts::read(&status["used"]),
        }
    }

    /// What is used with `growth`, or why that is too much.
    pub fn used_with(&self, growth: &Amounts, is_bounded: bool) -> Result<Amounts, QuotaError> {
        let requested = amounts::mask(growth, &self.hard);
        let mut used = self.used.clone();
        amounts::add(&mut used, &requested);
        let exceeds = |name: &&String| used.get(*name) > self.hard.get(*name);
        let exceeded: BTreeSet<&str> = requested.keys().filter(exceeds).map(String::as_str).collect();
        if exceeded.is_empty() || !is_bounded {
            return Ok(used);
        }
        let of = |list: &Amounts| amounts::only(list, &exceeded);
        Err(QuotaError::Exceeded {
            quota: self.name.clone(),
            requested: of(&requested),
            used: of(&self.used),
            limited: of(&self.hard),
        })
    }
}

impl QuotaScope {
    /// Whether only the fact is asked for, and not which value it has.
    pub fn is_exists(&self) -> bool {
        self.operator == "Exists"
    }

    /// Whether an object with this value is in the scope, or without one.
    pub fn selects(&self, value: Option<&str>) -> bool {
        let listed = value.is_some_and(|value| self.values.iter().any(|one| one == value));
        match self.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_used_stays_within_what_is_allowed() {
        let quota = Quota::read(&json!({"metadata": {"name": "q"}, "status": {
            "hard": {"cpu": "1", "pods": "5"}, "used": {"cpu": "500m", "pods": "5"}}}));
        let of = |growth: Value, bounded: bool| quota.used_with(&amounts::read(&growth), bounded);
        assert_eq!(amounts::text(&of(json!({"cpu": "500m", "memory": "1Gi"}), true).unwrap()), "cpu=1,pods=5");
        assert_eq!(
            of(json!({"cpu": "600m", "pods": "1", "memory": "1Gi"}), true).unwrap_err().to_string(),
            "exceeded quota: q, requested: cpu=600m,pods=1, used: cpu=500m,pods=5, limited: cpu=1,pods=5"
        );
        assert_eq!(amounts::text(&of(json!({"pods": "1"}), false).unwrap()), "cpu=500m,pods=6");
    }

    #[test]
    fn a_scope_selects_as_a_label_selector_does() {
        let scope = |operator: &str| QuotaScope {
            name: "PriorityClass".into(),
            operator: operator.into(),
            values: vec!["high".into()],
        };
        for (operator, high, low, none) in [
            ("In", true, false, false),
            ("NotIn", false, true, true),
            ("Exists", true, true, false),
            ("DoesNotExist", false, false, true),
        ] {
            let scope = scope(operator);
            let found = [Some("high"), Some("low"), None].map(|value| scope.selects(value));
            assert_eq!(found, [high, low, none], "{operator}");
        }
    }
}
