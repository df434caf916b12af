//! Tolerations of pods, and which of two tolerates more.
//!
//! Source: `pkg/util/tolerations` of Kubernetes.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use serde_json::{Map, Value};

use crate::kinds::reading::text;

/// One toleration. Empty text stands for what is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// Key of the taints; empty, with the operator `Exists`, for all.
    pub key: String,
    /// `Exists`, `Equal` or empty, which means `Equal`.
    pub operator: String,
    /// Value of the taints.
    pub value: String,
    /// Effect of the taints; empty for all.
    pub effect: String,
    /// For how long a taint `NoExecute` is tolerated; forever if it is not said.
    pub seconds: Option<i64>,
}

impl Toleration {
    /// Of all taints with this key that keep pods from being scheduled.
    pub fn of_no_schedule(key: &str) -> Self {
        Self { key: key.into(), operator: "Exists".into(), effect: "NoSchedule".into(), ..Self::default() }
    }

    /// As a pod has it.
    pub fn read(toleration: &Value) -> Self {
        let text = |field| text(toleration, field).to_owned();
        Self {
            key: text("key"),
            operator: text("operator"),
            value: text("value"),
            effect: text("effect"),
            seconds: toleration["tolerationSeconds"].as_i64(),
        }
    }

    /// As a pod has it.
    pub fn to_json(&self) -> Value {
        let texts =
            [("key", &self.key), ("operator", &self.operator), ("value", &self.value), ("effect", &self.effect)];
        let said = texts.into_iter().filter(|(_, text)| !text.is_empty());
        let mut object: Map<String, Value> =
            said.map(|(field, text)| (field.to_owned(), Value::from(text.as_str()))).collect();
        if let Some(seconds) = self.seconds {
            object.insert("tolerationSeconds".into(), seconds.into());
        }
        Value::Object(object)
    }

    /// Of the same taints, for good.
    pub fn for_good(self) -> Self {
        Self { seconds: None, ..self }
    }

    /// Whether it tolerates all that `other` does.
    fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let is_about_every_key = self.key.is_empty() && self.operator == "Exists";
        if self.key != other.key && !is_about_every_key || self.effect != other.effect && !self.effect.is_empty() {
            return false;
        }
        let is_shorter = |limit: i64| self.effect == "NoExecute" && other.seconds.is_none_or(|seconds| seconds > limit);
        if self.seconds.is_some_and(is_shorter) {
            return false;
        }
        match self.operator.as_str() {
            "Equal" | "" => other.operator == "Equal" && other.value == self.value,
            operator => operator == "Exists",
        }
    }
}

/// Tolerations by what they are about: one that covers another is found without a look at all of them.
#[derive(Default)]
struct Covering<'a> {
    all: HashSet<&'a Toleration>,
    /// By key, effect, and the value of an operator that compares it: the two that last longest. Of two that differ,
    /// one is another than the toleration that is to be covered.
    longest: HashMap<(&'a str, &'a str, Option<&'a str>), Vec<&'a Toleration>>,
}

impl<'a> Covering<'a> {
    fn add(&mut self, one: &'a Toleration) {
        let value = match one.operator.as_str() {
            "Equal" | "" => Some(one.value.as_str()),
            _ => None,
        };
        if self.all.insert(one) {
            let longest = self.longest.entry((&one.key, &one.effect, value)).or_default();
            longest.push(one);
            longest.sort_by_key(|one| Reverse((one.operator == "Exists", one.seconds.is_none(), one.seconds)));
            longest.truncate(2);
        }
    }

    /// Whether one that is not the same covers it.
    fn others_cover(&self, one: &Toleration) -> bool {
        let keys = [(&*one.key, &*one.effect), (&*one.key, ""), ("", &*one.effect), ("", "")];
        let abouts = keys.into_iter().flat_map(|(key, effect)| [(key, effect, None), (key, effect, Some(&*one.value))]);
        let mut candidates = abouts.filter_map(|about| self.longest.get(&about)).flatten();
        candidates.any(|other| *other != one && other.covers(one))
    }

    fn cover(&self, one: &Toleration) -> bool {
        self.all.contains(one) || self.others_cover(one)
    }
}

/// Of a list of tolerations, those that no other one covers; of those that are the same, the first.
pub fn merge(all: Vec<Toleration>) -> Vec<Toleration> {
    let mut later = Covering::default();
    let mut is_covered_later = vec![false; all.len()];
    for (one, is_covered) in all.iter().zip(&mut is_covered_later).rev() {
        *is_covered = later.others_cover(one);
        later.add(one);
    }
    let mut kept = Covering::default();
    let mut merged = Vec::new();
    for (one, _) in all.iter().zip(is_covered_later).filter(|(_, is_covered)| !is_covered) {
        if !kept.cover(one) {
            kept.add(one);
            merged.push(one.clone());
        }
    }
    merged
}

/// Whether each of a pod's tolerations is covered by one that is allowed. If none is, nothing is limited.
pub fn are_allowed(tolerations: &[Toleration], allowed: &[Toleration]) -> bool {
    let mut covering = Covering::default();
    allowed.iter().for_each(|one| covering.add(one));
    allowed.is_empty() || tolerations.iter().all(|toleration| covering.cover(toleration))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::json;

    use super::*;

    fn of(key: &str, operator: &str, value: &str, effect: &str, seconds: Option<i64>) -> Toleration {
        let text = |text: &str| text.to_owned();
        Toleration { key: text(key), operator: text(operator), value: text(value), effect: text(effect), seconds }
    }

    /// Cases of `TestIsSuperset` in `pkg/util/tolerations`.
    #[test]
    fn one_toleration_covers_another() {
        let every = of("", "Exists", "", "", None);
        let exists = of("a", "Exists", "", "NoExecute", None);
        let equal = of("a", "Equal", "v", "NoExecute", None);
        let short = |seconds| of("a", "Equal", "v", "NoExecute", Some(seconds));
        assert!(every.covers(&exists) && every.covers(&equal) && every.covers(&short(1)));
        assert!(exists.covers(&equal) && !equal.covers(&exists) && !exists.covers(&every));
        assert!(equal.covers(&short(100)) && !short(100).covers(&equal));
        assert!(short(100).covers(&short(50)) && !short(50).covers(&short(100)));
        assert!(!exists.covers(&of("b", "Exists", "", "NoExecute", None)));
        assert!(!exists.covers(&of("a", "Exists", "", "NoSchedule", None)));
        assert!(of("a", "Exists", "", "", None).covers(&exists));
        assert!(!equal.covers(&of("a", "Equal", "w", "NoExecute", None)));
        let silent = of("a", "", "v", "NoExecute", None);
        assert!(silent.covers(&equal) && !equal.covers(&silent), "as in Kubernetes");
        assert!(!of("a", "Gt", "1", "", None).covers(&exists));
    }

    #[test]
    fn merging_keeps_what_tolerates_most() {
        let of_key = |key: &str| match key {
            "*" => of("", "Exists", "", "", None),
            key => Toleration::of_no_schedule(key),
        };
        let list = |keys: &str| keys.chars().map(|key| of_key(&key.to_string())).collect::<Vec<_>>();
        for (first, second, merged) in [("a", "ba", "ab"), ("ab", "*", "*"), ("*", "a", "*"), ("", "a", "a")] {
            assert_eq!(merge([list(first), list(second)].concat()), list(merged), "{first} and {second}");
        }
        for (has, allowed, is_allowed) in
            [("a", "", true), ("", "b", true), ("a", "*", true), ("ab", "b", false), ("ab", "ba", true)]
        {
            assert_eq!(are_allowed(&list(has), &list(allowed)), is_allowed, "{has} of {allowed}");
        }
        let a = of_key("a");
        assert_eq!(a.to_json(), json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"}));
        let all = json!({"key": "a", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 5});
        assert_eq!(Toleration::read(&all).to_json(), all);
    }

    /// As Kubernetes merges them, which compares each with all others.
    fn merge_by_pairs(all: &[Toleration]) -> Vec<Toleration> {
        let mut merged: Vec<Toleration> = Vec::new();
        for (i, one) in all.iter().enumerate() {
            let is_covered = merged.iter().any(|other| other.covers(one))
                || all[i + 1..].iter().any(|other| other != one && other.covers(one));
            if !is_covered {
                merged.push(one.clone());
            }
        }
        merged
    }

    fn some_tolerations() -> impl Strategy<Value = Vec<Toleration>> {
        let one = (
            select(vec!["", "a", "b"]),
            select(vec!["", "Equal", "Exists", "Gt"]),
            select(vec!["", "v"]),
            select(vec!["", "NoSchedule", "NoExecute"]),
            select(vec![None, Some(-1), Some(0), Some(1)]),
        );
        vec(one.prop_map(|(key, operator, value, effect, seconds)| of(key, operator, value, effect, seconds)), 0..12)
    }

    proptest! {
        #[test]
        fn what_covers_another_is_found_as_if_all_were_compared(all in some_tolerations(), more in some_tolerations()) {
            prop_assert_eq!(merge(all.clone()), merge_by_pairs(&all));
            let each = all.iter().all(|one| more.iter().any(|other| other.covers(one)));
            prop_assert_eq!(are_allowed(&all, &more), more.is_empty() || each);
        }
    }
}
