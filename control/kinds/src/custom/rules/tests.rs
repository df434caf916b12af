//! Rules as custom resources have them: scopes, transitions, ratcheting, messages and costs.

use super::*;

fn object(properties: Json, rules: Json) -> Structural {
    Structural::read(&json!({"type": "object", "properties": properties, "x-kubernetes-validations": rules}))
}

fn errors(schema: &Structural, value: Json, old: Option<Json>) -> Vec<String> {
    let rules = RuleScope::root(schema).unwrap().compile(schema);
    let mut budget = cel::OBJECT_BUDGET;
    let errors = rules.validate("", &value, old.as_ref(), &mut budget);
    errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
}

fn refusals(schema: &Structural) -> Vec<String> {
    let (mut total, mut errors) = (Budget::default(), Vec::new());
    RuleScope::root(schema).unwrap().check_rules("s", schema, None, true, &mut total, &mut errors);
    errors.extend(total.errors("s"));
    errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
}

fn spec(properties: Json, rules: Json) -> Structural {
    let spec = json!({"type": "object", "properties": properties, "x-kubernetes-validations": rules});
    Structural::read(&json!({"type": "object", "properties": {"spec": spec}}))
}

#[test]
fn a_rule_that_does_not_hold_is_told_with_its_message() {
    let schema = spec(
        json!({"a": {"type": "integer"}, "b": {"type": "integer"}}),
        json!([{"rule": "self.a <= self.b"}, {"rule": "self.a > 0", "message": "a is too small",
            "reason": "FieldValueForbidden", "fieldPath": ".a"},
            {"rule": "self.b < 10", "messageExpression": "'b is ' + string(self.b)"}]),
    );
    assert_eq!(errors(&schema, json!({"spec": {"a": 1, "b": 2}}), None), Vec::<String>::new());
    assert_eq!(
        errors(&schema, json!({"spec": {"a": 0, "b": -1}}), None),
        ["spec: Invalid value: failed rule: self.a <= self.b", "spec.a: Forbidden: a is too small"]
    );
    assert_eq!(errors(&schema, json!({"spec": {"a": 1, "b": 12}}), None), ["spec: Invalid value: b is 12"]);
    assert_eq!(
        errors(&schema, json!({"spec": {"a": 1}}), None)[0],
        "spec: Invalid value: \"object\": no such key: b evaluating rule: self.a <= self.b"
    );
}

#[test]
fn transitions_are_looked_at_on_update_alone() {
    let schema = spec(
        json!({"a": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf",
            "message": "immutable"}]},
            "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items":
                {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
                 "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v"}]}}}),
        json!([{"rule": "oldSelf.hasValue() || self.a == 'new'", "optionalOldSelf": true}]),
    );
    let old = json!({"spec": {"a": "x", "m": [{"k": "1", "v": 5}]}});
    assert_eq!(
        errors(&schema, old.clone(), None),
        ["spec: Invalid value: failed rule: oldSelf.hasValue() || self.a == 'new'"]
    );
    let new = json!({"spec": {"a": "y", "m": [{"k": "2", "v": 1}, {"k": "1", "v": 4}]}});
    assert_eq!(
        errors(&schema, new, Some(old.clone())),
        ["spec.a: Invalid value: \"y\": immutable", "spec.m[1]: Invalid value: failed rule: self.v >= oldSelf.v"]
    );
    assert_eq!(errors(&schema, old.clone(), Some(old)), Vec::<String>::new());
}

#[test]
fn an_unchanged_value_is_not_held_against_an_update() {
    let schema = spec(
        json!({"a": {"type": "object", "properties": {"x": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.x > 5"}]},
            "b": {"type": "integer"}}),
        json!([]),
    );
    let old = json!({"spec": {"a": {"x": 1}, "b": 1}});
    assert_eq!(errors(&schema, json!({"spec": {"a": {"x": 1}, "b": 2}}), Some(old.clone())), Vec::<String>::new());
    assert_eq!(errors(&schema, json!({"spec": {"a": {"x": 2}, "b": 2}}), Some(old)).len(), 1);
}

#[test]
fn metadata_names_and_escaped_fields_can_be_named() {
    let schema = object(
        json!({"spec": {"type": "object", "properties": {"x-prop": {"type": "integer"},
            "namespace": {"type": "string"}}}}),
        json!([{"rule": "self.metadata.name.startsWith('w') && self.spec.x__dash__prop == 1 && \
        self.spec.__namespace__ == 'n'"}]),
    );
    assert_eq!(refusals(&schema), Vec::<String>::new());
    let value =
        json!({"apiVersion": "v", "kind": "K", "metadata": {"name": "w1"}, "spec": {"x-prop": 1, "namespace": "n"}});
    assert_eq!(errors(&schema, value, None), Vec::<String>::new());
}

#[test]
fn rules_are_checked_by_the_types_of_the_schema() {
    let refused = |rule: &str| {
        let schema = object(
            json!({"a": {"type": "integer"}, "s": {"type": "string", "maxLength": 10}}),
            json!([{"rule": rule}]),
        );
        refusals(&schema)
    };
    assert!(refused("self.a == 1").is_empty());
    let undefined = refused("self.b == 1");
    assert!(undefined[0].starts_with("s.x-kubernetes-validations[0].rule: Invalid value: "), "{undefined:?}");
    assert!(
        undefined[0].ends_with("compilation failed: ERROR: <input>:1:5: undefined field 'b'\n | self.b == 1\n | ....^"),
        "{}",
        undefined[0]
    );
    assert!(refused("self.a == 'x'")[0].contains("found no matching overload for '_==_' applied to '(int, string)'"));
    assert!(refused("self.a +")[0].contains("Syntax error"));
    assert!(refused("self.a")[0].ends_with("cel expression must evaluate to a bool"));
    assert!(refused("nope == 1")[0].contains("undeclared reference to 'nope' (in container '')"));
    assert!(refused("self.s.matches('^a+$') && self.s.size() < 5").is_empty());
}

#[test]
fn rules_that_may_cost_too_much_are_refused() {
    let list = json!({"list": {"type": "array", "items": {"type": "string"}}});
    let schema = object(list, json!([{"rule": "self.list.all(x, self.list.all(y, x == y))"}]));
    let found = refusals(&schema);
    assert!(
        found[0].starts_with(
            "s.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget \
    by factor of more than 100x"
        ),
        "{found:?}"
    );
    let bounded = json!({"list": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 10}}});
    let schema = object(bounded, json!([{"rule": "self.list.all(x, self.list.all(y, x == y))"}]));
    assert_eq!(refusals(&schema), Vec::<String>::new());
}

#[test]
fn a_hostile_rule_ends_when_its_budget_is_spent() {
    let list = json!({"list": {"type": "array", "items": {"type": "integer"}}});
    for rule in [
        "self.list.all(a, self.list.all(b, self.list.all(c, a + b + c >= 0)))",
        "self.list.map(x, self.list + self.list).size() > 0 && self.list.all(x, self.list == self.list)",
        "'aaaaaaaaaa'.replace('', 'bbbbbbbbbb').replace('', 'cccccccccccccccccccc').replace('', \
        'dddddddddddddddddddddddddd').replace('', 'eeeeeeeeeeeeeeeeeeee').replace('', 'ffffffffffffffffff').size() > 0",
        "lists.range(1000000000).size() > 0",
    ] {
        let schema = object(list.clone(), json!([{"rule": rule}]));
        let value = json!({"list": (0..20_000).collect::<Vec<i64>>()});
        let started = std::time::Instant::now();
        let found = errors(&schema, value, None);
        assert_eq!(found.len(), 1, "{rule}");
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{rule}");
    }
}

#[test]
fn oldself_needs_parts_that_can_be_told_apart() {
    let schema = object(json!({}), json!([{"rule": "self == oldSelf"}]));
    let (mut total, mut errors) = (Budget::default(), Vec::new());
    RuleScope::root(&schema).unwrap().check_rules("s", &schema, Some("s.list"), true, &mut total, &mut errors);
    assert_eq!(
        errors[0].message,
        "Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema \
        within s.list"
    );
}
