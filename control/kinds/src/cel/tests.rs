//! The language and its libraries by example: an expression, and what it is.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::json;

use super::{Activation, CALL_LIMIT, EvalError, Scope, Type, Value, compile};
use crate::fuzzing::fuzz;

/// What the expression is, as text; or its error.
fn value(text: &str) -> String {
    let data = json!({"a": 1, "list": [1, 2, 3], "name": "web", "f": 1.5, "nothing": null});
    let scope = Scope::default().with("object", Type::Dyn);
    let program = match compile(text, &scope, &Type::Dyn) {
        Ok(program) => program,
        Err(error) => return format!("{error}"),
    };
    let activation = Activation::default().with("object", Value::of(&data, None));
    match program.evaluate(&activation).value {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error: {error}"),
    }
}

fn all(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(value(text), *expected, "{text}");
    }
}

#[test]
fn numbers_texts_and_logic() {
    all(&[
        ("1 + 2 * 3", "7"),
        ("7 / 2", "3"),
        ("-7 % 3", "-1"),
        ("1 / 0", "error: division by zero"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("1u + 2u", "3u"),
        ("1.5 * 2.0", "3.0"),
        ("1 < 2.5", "true"),
        ("'a' + 'b'", "\"ab\""),
        ("true || 1 / 0 > 1", "true"),
        ("1 / 0 > 1 && false", "false"),
        ("1 / 0 > 1 || false", "error: division by zero"),
        ("!true ? 1 : 2", "2"),
        ("1 in [1, 2]", "true"),
        ("'k' in {'k': 1}", "true"),
        ("{'a': 1}['b']", "error: no such key: b"),
        ("[1, 2][2]", "error: index out of bounds: 2"),
        ("size('äö') == 2", "true"),
        ("type(1) == int", "true"),
        ("int('5') + int(2.9)", "7"),
        ("string(5) + string(true)", "\"5true\""),
        ("b'abc'.size()", "3"),
        ("null == null", "true"),
    ]);
}

#[test]
fn data_is_seen_as_it_is() {
    all(&[
        ("object.a + 1", "2"),
        ("object.f", "1.5"),
        ("object.none", "error: no such key: none"),
        ("has(object.none)", "false"),
        ("has(object.nothing)", "true"),
        ("object.?none.orValue('x')", "\"x\""),
        ("object.list.map(x, x * 2).filter(y, y > 2)", "[4, 6]"),
        ("object.list.all(x, x > 0) && object.list.exists_one(x, x == 2)", "true"),
        ("object.list.all(i, x, x == i + 1)", "true"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", "{\"b\": 20}"),
        ("object.list.transformList(i, x, i * x)", "[0, 2, 6]"),
        ("object == {'a': dyn(1), 'list': dyn([1, 2, 3]), 'name': 'web', 'f': 1.5, 'nothing': null}", "true"),
        ("object.name.matches('^w.b$')", "true"),
        ("[1, 2] + [3] == object.list", "true"),
    ]);
}

#[test]
fn texts_are_taken_apart() {
    all(&[
        ("'hello'.charAt(1)", "\"e\""),
        ("'hello hello'.indexOf('hello', 1)", "6"),
        ("'hello hello'.lastIndexOf('hello')", "6"),
        ("'a,b,c'.split(',', 2)", "[\"a\", \"b,c\"]"),
        ("'abc'.split('')", "[\"a\", \"b\", \"c\"]"),
        ("'abcabc'.replace('b', 'x', 1)", "\"axcabc\""),
        ("'abc'.substring(1, 2)", "\"b\""),
        ("' x '.trim().upperAscii()", "\"X\""),
        ("['a', 'b'].join('-')", "\"a-b\""),
        ("'%s is %d and %.2f'.format([dyn('x'), 5, 1.5])", "\"x is 5 and 1.50\""),
        ("'%s'.format([[dyn(1), 'a']])", "\"[1, a]\""),
        ("'abc123'.find('[0-9]+')", "\"123\""),
        ("'1a2b'.findAll('[0-9]')", "[\"1\", \"2\"]"),
        ("strings.quote('a\"b')", "\"\\\"a\\\\\\\"b\\\"\""),
        ("'a'.substring(5)", "error: index out of range: 5"),
    ]);
}

#[test]
fn lists_and_sets() {
    all(&[
        ("[3, 1, 2].sort()", "[1, 2, 3]"),
        ("[1, 2, 3].isSorted() && [1, 2, 3].sum() == 6 && [1, 5, 2].max() == 5", "true"),
        ("[1, 1, 2].distinct()", "[1, 2]"),
        ("[[1], [2, 3]].flatten()", "[1, 2, 3]"),
        ("[1, 2, 3].slice(1, 3).reverse()", "[3, 2]"),
        ("lists.range(3)", "[0, 1, 2]"),
        ("[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2", "true"),
        ("sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 2])", "true"),
        ("[1, 2].first().value()", "1"),
        ("[?optional.of(1), ?optional.none(), 2]", "[1, 2]"),
        ("optional.of(2).optMap(x, x + 1).value()", "3"),
        ("optional.none().hasValue()", "false"),
    ]);
}

#[test]
fn libraries_of_kubernetes() {
    all(&[
        ("quantity('1Gi').isGreaterThan(quantity('1G'))", "true"),
        ("quantity('500m').add(quantity('500m')).asInteger()", "1"),
        ("quantity('1').compareTo(quantity('2'))", "-1"),
        ("isQuantity('x')", "false"),
        ("ip('10.0.0.1').family() == 4 && ip('::1').isLoopback()", "true"),
        ("ip.isCanonical('::ffff')", "true"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')", "true"),
        ("cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && string(cidr('10.0.0.0/8').ip()) == '10.0.0.0'", "true"),
        ("url('https://u@example.com:80/a%20b?k=v&k=w').getQuery()", "{\"k\": [\"v\", \"w\"]}"),
        (
            "url('https://example.com:80/x').getHostname() + url('https://example.com:80/x').getPort()",
            "\"example.com80\"",
        ),
        (
            "format.dns1123Label().validate('a_b').hasValue() && \
            !format.named('uri').value().validate('https://a/b').hasValue()",
            "true",
        ),
        ("semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('v1.0', true)", "true"),
        ("timestamp('2024-02-29T10:30:00Z').getDayOfYear()", "59"),
        ("timestamp('2024-01-01T00:30:00Z').getHours('-02:00')", "22"),
        ("duration('90m').getHours()", "1"),
        ("timestamp('2024-01-01T01:00:00Z') - timestamp('2024-01-01T00:00:00Z') == duration('1h')", "true"),
    ]);
}

#[test]
fn a_place_is_shown_below_the_line_that_has_it() {
    let told = |text: &str| compile(text, &Scope::default(), &Type::Dyn).err().map(|e| e.to_string()).unwrap();
    let wide = told("'é' + none");
    assert!(wide.ends_with("\n | 'é' + none\n | .\u{ff0e}....^"), "{wide}");
    assert!(told("é").contains("\n | é\n | \u{ff3e}"), "{}", told("é"));
    let empty = told("");
    assert!(empty.starts_with("ERROR: <input>:1:0: Syntax error") && !empty.contains('\n'), "{empty}");
}

#[test]
fn what_is_not_declared_or_does_not_fit_is_told_with_its_place() {
    let told = |text: &str| value(text);
    assert_eq!(
        told("1 + 'a'"),
        "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^"
    );
    assert!(told("nope").contains("undeclared reference to 'nope' (in container '')"));
    assert!(told("'a'.nope()").contains("undeclared reference to 'nope'"));
    assert!(told("[1, 'a']").contains("expected type 'int' but found 'string'"));
    assert!(told("(").contains("Syntax error"));
    for deep in [
        format!("{}1{}", "(".repeat(2000), ")".repeat(2000)),
        format!("{}true", "!".repeat(2000)),
        format!("{}1", "true ? 1 : ".repeat(1000)),
        format!("1{}", " + 1".repeat(5000)),
        format!("object{}", ".a".repeat(5000)),
        "1".repeat(100_000),
    ] {
        assert!(told(&deep).contains("limit"), "nesting is bounded");
    }
}

#[test]
fn costs_are_those_of_cel_go() {
    let data = json!({"list": [1, 2, 3], "text": "a".repeat(100)});
    let cost = |text: &str| {
        let program = compile(text, &Scope::default().with("self", Type::Dyn), &Type::Dyn).unwrap();
        program.evaluate(&Activation::default().with("self", Value::of(&data, None))).cost
    };
    let costs: HashMap<&str, u64> = [
        ("1 + 1", 1),
        ("self.list", 2),
        ("self.text.contains('aaaaaaaaaa')", 12),
        ("self.text == self.text", 14),
        ("has(self.list)", 1),
        ("[1, 2]", 10),
        ("true && false", 0),
        // As in `apiserver/pkg/cel/library/cost_test.go`.
        ("[1, 2, 3, 4, 5].indexOf(3)", 15),
        ("sets.contains([1], [1, 1])", 23),
        ("sets.equivalent([1, 2, 3], [3, 2, 1])", 39),
        ("sets.intersects([1], [1, 2])", 23),
        ("['aa', 'bb', 'cc', 'd', 'e', 'f', 'g', 'h', 'i', 'j'].join(' ')", 15),
        ("'abc'.matches('^[a-z]+$')", 2),
    ]
    .into();
    for (text, expected) in costs {
        assert_eq!(cost(text), expected, "{text}");
    }
}

#[test]
fn what_is_hidden_in_the_items_and_in_a_pattern_costs_too() {
    let data = json!({"pattern": "(a{90}){90}", "large": [vec![1; 1000], vec![1; 1000]]});
    let cost = |text: &str| {
        let program = compile(text, &Scope::default().with("self", Type::Dyn), &Type::Dyn).unwrap();
        program.evaluate(&Activation::default().with("self", Value::of(&data, None))).cost
    };
    let (constant, computed) = ("'a'.matches('(a{90}){90}')", "'a'.matches(self.pattern)");
    assert!(cost(computed) > cost(constant) + 10_000, "{} {}", cost(computed), cost(constant));
    assert!(cost("sets.contains(self.large, self.large)") > 200);
    assert!(cost("self.large.indexOf([1])") > 2000);
}

#[test]
fn estimates_know_functions_whose_names_have_two_parts() {
    let estimate = |text: &str| compile(text, &Scope::default(), &Type::Dyn).unwrap().max_cost;
    assert_eq!(estimate("sets.contains([1], [1, 1])"), 23);
    assert_eq!(estimate("sets.equivalent([1, 2, 3], [3, 2, 1])"), 39);
    assert_eq!(estimate("['aa', 'b'].join('')"), 11);
}

#[test]
fn an_expression_ends_at_its_limit() {
    let scope = Scope::default();
    for text in [
        "lists.range(2000).all(a, lists.range(2000).all(b, true))",
        "lists.range(1000).map(x, lists.range(1000)).all(x, x == x)",
        "lists.range(1000).all(x, ['(a{90}){90}' + string(x)].all(p, !'a'.matches(p)))",
        "lists.range(600).map(x, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa').join('').matches('(a*)*b') || \
        lists.range(1000).all(x, lists.range(1000).all(y, y in [1, 2, y]))",
    ] {
        let program = compile(text, &scope, &Type::Bool).unwrap();
        let evaluated = program.evaluate(&Activation::default());
        assert_eq!(evaluated.value.unwrap_err(), EvalError::CostLimit, "{text}");
        assert!(evaluated.cost < 2 * CALL_LIMIT + 1_000_000, "{text}");
    }
}

#[test]
fn any_text_is_refused_or_evaluated_within_its_limit() {
    fuzz(prop::collection::vec(prop::sample::select(WORDS), 1..12), |words| {
        let text = words.concat();
        let scope = Scope::default().with("object", Type::Dyn);
        if let Ok(program) = compile(&text, &scope, &Type::Dyn) {
            let data = json!({"a": [1, "x", null, {"b": 2.5}]});
            let evaluated = program.evaluate(&Activation::default().with("object", Value::of(&data, None)));
            prop_assert!(evaluated.cost < 4 * CALL_LIMIT || evaluated.value.is_err());
        }
        Ok(())
    });
}

const WORDS: &[&str] = &[
    "object",
    ".a",
    "[0]",
    "[-1]",
    "(",
    ")",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    "1",
    "9223372036854775807",
    "-1",
    "2.5",
    "'x'",
    "b'\\xff'",
    "null",
    "true",
    "[1, 2]",
    "{'k': 1}",
    ".map(x, x + x)",
    ".all(x, x > 0)",
    ".size()",
    "size(",
    " == ",
    " < ",
    " in ",
    " ? 1 : ",
    " && ",
    "!",
    ".?b",
    "[?0]",
    ".orValue(1)",
    "timestamp('2024-01-01T00:00:00Z')",
    "duration('1h')",
    "quantity('1Ei')",
    ".add(quantity('1Ei'))",
    "string(",
    "int(",
    ".substring(1)",
    ".split('')",
    ".join()",
    ".replace('', 'yy')",
    ".matches('.*')",
    ".format([1])",
    "'%s%d'",
    "lists.range(5)",
    ".flatten()",
    ".sort()",
    ".getFullYear()",
    "cidr('::/0')",
    ".masked()",
    "@",
    "\"",
    "\\",
    "äö",
    "type(",
    "dyn(",
];
