//! Amounts of resources by name (`cpu`, `requests.storage`, `count/secrets`), and the arithmetic of Kubernetes'
//! `ResourceList`. All of it saturates.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::kinds::{quantity::Quantity, reading::entries};

/// How much of each resource. A resource that is not named is something else than one of which there is nothing.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a map of quantities; what is malformed is left out.
pub fn read(map: &Value) -> Amounts {
    entries(map).filter_map(|(name, amount)| Some((name.clone(), Quantity::of(amount)?))).collect()
}

/// The map of quantities, each in its canonical form.
pub fn to_json(amounts: &Amounts) -> Value {
    let entry = |(name, amount): (&String, &Quantity)| (name.clone(), Value::from(amount.to_string()));
    Value::Object(amounts.iter().map(entry).collect::<Map<String, Value>>())
}

/// Adds `more` to `to`.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        match to.get_mut(name) {
            Some(sum) => *sum = sum.saturating_add(*amount),
            None => drop(to.insert(name.clone(), *amount)),
        }
    }
}

/// Raises `to` to what `other` has more of.
pub fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        match to.get_mut(name) {
            Some(most) if *most >= *amount => {}
            _ => drop(to.insert(name.clone(), *amount)),
        }
    }
}

/// `of - what`, with nothing where that is negative.
pub fn growth(of: &Amounts, what: &Amounts) -> Amounts {
    let left = |(name, amount): (&String, &Quantity)| {
        let rest = what.get(name).map_or(*amount, |less| amount.saturating_sub(*less));
        (name.clone(), if rest.is_positive() { rest } else { Quantity::ZERO })
    };
    of.iter().map(left).collect()
}

/// The amounts alone that `names` has.
pub fn mask(amounts: &Amounts, names: &Amounts) -> Amounts {
    let shared = amounts.iter().filter(|(name, _)| names.contains_key(*name));
    shared.map(|(name, amount)| (name.clone(), *amount)).collect()
}

/// The amounts alone of these names.
pub fn only(amounts: &Amounts, names: &BTreeSet<&str>) -> Amounts {
    let wanted = amounts.iter().filter(|(name, _)| names.contains(name.as_str()));
    wanted.map(|(name, amount)| (name.clone(), *amount)).collect()
}

/// `cpu=1,pods=2`
pub fn text(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_added_raised_and_compared_by_name() {
        let mut sum = read(&json!({"cpu": "500m", "memory": "1Gi"}));
        add(&mut sum, &read(&json!({"cpu": 1, "pods": "1", "bad": "x"})));
        assert_eq!(text(&sum), "cpu=1500m,memory=1Gi,pods=1");
        raise(&mut sum, &read(&json!({"cpu": "1", "memory": "2Gi", "gpu": "1"})));
        assert_eq!(to_json(&sum), json!({"cpu": "1500m", "gpu": "1", "memory": "2Gi", "pods": "1"}));
        let growth = growth(&sum, &read(&json!({"cpu": "1", "memory": "3Gi"})));
        assert_eq!(text(&growth), "cpu=500m,gpu=1,memory=0,pods=1");
        assert_eq!(text(&mask(&growth, &read(&json!({"cpu": 0, "other": 1})))), "cpu=500m");
    }
}
