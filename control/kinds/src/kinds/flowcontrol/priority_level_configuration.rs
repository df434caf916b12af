//! PriorityLevelConfiguration: a share of the API, and how requests wait for it.

use serde_json::{Value, json};

use super::{GROUP, bootstrap, conditions, text};
use crate::kinds::{BuiltIn, Cell, Column, FieldError, pod::defaults::fill, prepare};

/// The declaration of this kind.
pub static KIND: BuiltIn = BuiltIn {
    group: GROUP,
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    namespaced: false,
    subresources: &["status"],
    default,
    validate,
    prepare: |new, old| {
        prepare::keep_status(new, old, json!({}));
        prepare::count_generation(new, old);
    },
    columns: &[
        Column::name(),
        Column::text("Type", "Exempt or Limited."),
        Column::text("NominalConcurrencyShares", "The share of the API."),
        Column::text("Queues", "How many queues there are."),
        Column::text("HandSize", "How many queues a flow may use."),
        Column::text("QueueLengthLimit", "How many requests may wait in a queue."),
        Column::age(),
    ],
    cells: |object| {
        let (spec, limited) = (&object["spec"], &object["spec"]["limited"]);
        let queuing = &limited["limitResponse"]["queuing"];
        let number = |value: &Value| value.as_i64().map_or_else(|| Cell::text("<none>"), Cell::integer);
        vec![
            Cell::name(object),
            Cell::text(text(spec, "type")),
            number(&limited["nominalConcurrencyShares"]),
            number(&queuing["queues"]),
            number(&queuing["handSize"]),
            number(&queuing["queueLengthLimit"]),
            Cell::age(object),
        ]
    },
    schema: "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
    ..BuiltIn::PLAIN
};

const MAX_QUEUES: i64 = 10_000_000;
/// Bits of a hash that are good for the choice of a hand.
const MAX_HASH_BITS: f64 = 60.0;

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    for (field, shares) in [("exempt", 0), ("limited", 30)] {
        if let Some(part) = spec.get_mut(field) {
            fill(part, "nominalConcurrencyShares", || json!(shares));
            fill(part, "lendablePercent", || json!(0));
        }
    }
    let queuing = spec.get_mut("limited").and_then(|limited| limited.get_mut("limitResponse"));
    let Some(queuing) = queuing.and_then(|response| response.get_mut("queuing")).and_then(Value::as_object_mut) else {
        return;
    };
    for (field, number) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
        if queuing.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
            queuing.insert(field.into(), json!(number));
        }
    }
}

fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    const TYPES: [&str; 2] = ["Exempt", "Limited"];
    let (spec, name) = (&new["spec"], text(&new["metadata"], "name"));
    let kind = text(spec, "type");
    let mut errors = Vec::new();
    if (name == "exempt") != (kind == "Exempt") {
        let why = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(FieldError::invalid("spec.type", &spec["type"], why));
    }
    match kind {
        "Exempt" => {
            if !spec["limited"].is_null() {
                errors.push(FieldError::forbidden("spec.limited", "must be nil if the type is not Limited"));
            }
            errors.extend(nominal_shares("spec.exempt", &spec["exempt"]));
            errors.extend(lendable_shares("spec.exempt", &spec["exempt"]));
        }
        "Limited" => {
            if !spec["exempt"].is_null() {
                errors.push(FieldError::forbidden("spec.exempt", "must be nil if the type is Limited"));
            }
            if spec["limited"].is_null() {
                errors.push(FieldError::required("spec.limited", "must not be empty when type is Limited"));
            } else {
                errors.extend(limited("spec.limited", &spec["limited"]));
            }
        }
        _ => errors.push(FieldError::not_supported("spec.type", &spec["type"], &TYPES)),
    }
    errors.extend(fixed(name, spec));
    errors.extend(conditions(&new["status"]));
    errors
}

fn fixed(name: &str, spec: &Value) -> Option<FieldError> {
    if !bootstrap::MANDATORY.contains(&name) {
        return None;
    }
    let (_, wanted) = bootstrap::priority_levels().find(|(of, _)| *of == name)?;
    if name == "exempt" {
        // Its shares may be changed.
        let other = |spec: &Value| -> Vec<(String, Value)> {
            let fields = spec.as_object().into_iter().flatten();
            fields
                .filter(|(field, _)| *field != "exempt")
                .map(|(field, value)| (field.clone(), value.clone()))
                .collect()
        };
        let why = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
        return (other(&wanted) != other(spec)).then(|| FieldError::invalid("spec", spec, why));
    }
    (wanted != *spec).then(|| FieldError::invalid("spec", spec, format!("spec of '{name}' must equal the fixed value")))
}

fn nominal_shares(path: &str, part: &Value) -> Option<FieldError> {
    let own = &part["nominalConcurrencyShares"];
    let why = "must be a non-negative integer";
    let is_negative = own.as_i64().is_some_and(|number| number < 0);
    is_negative.then(|| FieldError::invalid(format!("{path}.nominalConcurrencyShares"), own, why))
}

fn lendable_shares(path: &str, part: &Value) -> Option<FieldError> {
    let lendable = &part["lendablePercent"];
    let why = "must be between 0 and 100, inclusive";
    let is_outside = lendable.as_i64().is_some_and(|percent| !(0..=100).contains(&percent));
    is_outside.then(|| FieldError::invalid(format!("{path}.lendablePercent"), lendable, why))
}

fn limited(path: &str, limited: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = nominal_shares(path, limited).into_iter().collect();
    let response = &limited["limitResponse"];
    let at = format!("{path}.limitResponse");
    match (text(response, "type"), response["queuing"].is_null()) {
        ("Reject", true) => {}
        ("Reject", false) => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(format!("{at}.queuing"), why));
        }
        ("Queue", true) => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(format!("{at}.queuing"), why));
        }
        ("Queue", false) => errors.extend(queuing(&format!("{at}.queuing"), &response["queuing"])),
        _ => errors.push(FieldError::not_supported(format!("{at}.type"), &response["type"], &["Queue", "Reject"])),
    }
    errors.extend(lendable_shares(path, limited));
    let borrowing = &limited["borrowingLimitPercent"];
    if borrowing.as_i64().is_some_and(|percent| percent < 0) {
        let why = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(format!("{path}.borrowingLimitPercent"), borrowing, why));
    }
    errors
}

fn queuing(path: &str, queuing: &Value) -> Vec<FieldError> {
    let number = |field: &str| queuing[field].as_i64().unwrap_or(0);
    let mut errors = Vec::new();
    let mut wrong = |field: &str, why: String| {
        errors.push(FieldError::invalid(format!("{path}.{field}"), &queuing[field], why));
    };
    let (length, queues, hand) = (number("queueLengthLimit"), number("queues"), number("handSize"));
    if length <= 0 {
        wrong("queueLengthLimit", "must be positive".into());
    }
    if queues <= 0 {
        wrong("queues", "must be positive".into());
    } else if queues > MAX_QUEUES {
        wrong("queues", format!("must not be greater than {MAX_QUEUES}"));
    }
    // Both are 32-bit numbers here, and so exact.
    let entropy = ((queues as f64).log2() * hand as f64).ceil();
    if hand <= 0 {
        wrong("handSize", "must be positive".into());
    } else if hand > queues {
        wrong("handSize", format!("should not be greater than queues ({queues})"));
    } else if entropy > MAX_HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        );
        wrong("handSize", why);
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, spec: Value) -> Vec<String> {
        let mut level = json!({"metadata": {"name": name}, "spec": spec});
        default(&mut level);
        validate(&level, None).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    fn queue(queuing: Value) -> Value {
        json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}})
    }

    #[test]
    fn a_level_is_limited_and_waits_in_queues_or_is_refused() {
        assert!(words("a", queue(json!({}))).is_empty());
        assert!(words("a", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}})).is_empty());
        assert_eq!(
            words("a", json!({"type": "Exempt"})),
            ["spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'"]
        );
        assert_eq!(
            words("a", json!({"type": "Limited"})),
            ["spec.limited: Required value: must not be empty when type is Limited"]
        );
        assert_eq!(
            words("a", queue(json!({"queues": 4, "handSize": 5}))),
            ["spec.limited.limitResponse.queuing.handSize: Invalid value: 5: should not be greater than queues (4)"]
        );
        assert_eq!(
            words("a", queue(json!({"queues": 128, "handSize": 10}))),
            [
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 10: required entropy bits of deckSize 128 and \
             handSize 10 should not be greater than 60"
            ]
        );
        assert_eq!(words("a", queue(json!({"queues": -1}))).len(), 2);
    }

    #[test]
    fn of_the_exempt_level_only_the_shares_can_change() {
        let exempt = |shares: i64| json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": shares}});
        assert!(words("exempt", exempt(5)).is_empty());
        assert_eq!(words("exempt", queue(json!({}))).len(), 2);
        let refused = words("catch-all", queue(json!({})));
        assert!(refused[0].ends_with("spec of 'catch-all' must equal the fixed value"), "{refused:?}");
    }
}
