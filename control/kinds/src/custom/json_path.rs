//! JSONPath as printer columns and selectable fields use it: `.status.conditions[?(@.type=="Ready")].status`.
//!
//! Source: `k8s.io/client-go/util/jsonpath`. Read once, when a kind is made. A path that cannot be read selects
//! nothing.

use serde_json::{Number, Value};

/// A path from an object to values within it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonPath(Vec<JsonPathStep>);

#[derive(Clone, Debug, PartialEq)]
enum JsonPathStep {
    Field(String),
    /// `*`
    Any,
    /// `..`
    Descend,
    /// `[1]`, `[-1]`
    Index(i64),
    /// `[start:end:step]`
    Slice(Option<i64>, Option<i64>, i64),
    /// `['a','b']`
    Fields(Vec<String>),
    Filter(Filter),
}

/// `?(left operator right)`; without an operator, that `left` is there.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    operator: Option<Operator>,
    right: Operand,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// From the item: `@.type`.
    Path(JsonPath),
    Value(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Values that one path may select: `..` over a hostile object must end.
const MOST: usize = 10_000;
/// Bytes of a path.
const MAX_LENGTH: usize = 1024;

impl JsonPath {
    /// Reads a path that begins with a dot or a bracket. `None` if it is malformed, too long, or has a filter within a
    /// filter: each would look through all that the other selects, for every item.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let mut steps = Vec::new();
        let mut rest = text.trim();
        while let Some(first) = rest.chars().next() {
            rest = match first {
                '.' if rest.starts_with("..") => {
                    steps.push(JsonPathStep::Descend);
                    match rest[2..].starts_with('[') {
                        true => &rest[2..],
                        false => field(&rest[2..], &mut steps)?,
                    }
                }
                '.' if rest.len() == 1 || rest[1..].starts_with('[') => &rest[1..],
                '.' => field(&rest[1..], &mut steps)?,
                '[' => {
                    let end = closing(rest)?;
                    steps.push(bracket(rest[1..end].trim())?);
                    &rest[end + 1..]
                }
                _ => return None,
            };
        }
        Some(Self(steps))
    }

    /// The values that the path selects, in their order.
    pub fn select<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut values = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in values {
                step.select(value, &mut next);
                next.truncate(MOST);
            }
            values = next;
        }
        values
    }
}

/// The name up to the next dot or bracket.
fn field<'t>(text: &'t str, steps: &mut Vec<JsonPathStep>) -> Option<&'t str> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => {
                end = at;
                break;
            }
            '\\' => name.push(chars.next()?.1),
            c => name.push(c),
        }
    }
    match name.as_str() {
        "" => return None,
        "*" => steps.push(JsonPathStep::Any),
        _ => steps.push(JsonPathStep::Field(name)),
    }
    Some(&text[end..])
}

/// Where the bracket that opens `text` is closed, quotes and inner brackets left alone.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', Some(_)) => escaped = true,
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('\'' | '"', None) => quote = Some(c),
            ('[', None) => depth = depth.saturating_add(1),
            (']', None) => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<JsonPathStep> {
    if text == "*" {
        return Some(JsonPathStep::Any);
    }
    if let Some(filter) = text.strip_prefix("?(") {
        return Some(JsonPathStep::Filter(Filter::parse(filter.strip_suffix(')')?)?));
    }
    if text.starts_with(['\'', '"']) {
        let names: Option<Vec<String>> = text.split(',').map(|name| unquoted(name.trim())).collect();
        return names.map(JsonPathStep::Fields);
    }
    if text.contains(':') {
        let number = |text: &str| match text.trim() {
            "" => Some(None),
            number => number.parse().ok().map(Some),
        };
        let mut parts = text.split(':');
        let (start, end) = (number(parts.next()?)?, number(parts.next()?)?);
        let step = parts.next().map_or(Some(None), number)?.unwrap_or(1);
        return (step > 0 && parts.next().is_none()).then_some(JsonPathStep::Slice(start, end, step));
    }
    text.parse().ok().map(JsonPathStep::Index)
}

fn unquoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    Some(inner.replace("\\'", "'").replace("\\\"", "\"").replace("\\\\", "\\"))
}

impl Filter {
    fn parse(text: &str) -> Option<Self> {
        const OPERATORS: [(&str, Operator); 6] = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let found = OPERATORS.iter().find_map(|(word, operator)| Some((text.split_once(word)?, *operator)));
        Some(match found {
            Some(((left, right), operator)) => {
                Self { left: Operand::parse(left)?, operator: Some(operator), right: Operand::parse(right)? }
            }
            None => Self { left: Operand::parse(text)?, operator: None, right: Operand::Value(Value::Null) },
        })
    }

    fn holds(&self, item: &Value) -> bool {
        let (left, right) = (self.left.of(item), self.right.of(item));
        let Some(operator) = self.operator else { return left.is_some() };
        let (Some(left), Some(right)) = (left, right) else { return false };
        let order = match (left, right) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().and_then(|a| a.partial_cmp(&b.as_f64()?)),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) => (a == b).then_some(std::cmp::Ordering::Equal),
        };
        match operator {
            Operator::Equal => order.is_some_and(|order| order.is_eq()),
            Operator::NotEqual => !order.is_some_and(|order| order.is_eq()),
            Operator::Less => order.is_some_and(|order| order.is_lt()),
            Operator::LessOrEqual => order.is_some_and(|order| order.is_le()),
            Operator::Greater => order.is_some_and(|order| order.is_gt()),
            Operator::GreaterOrEqual => order.is_some_and(|order| order.is_ge()),
        }
    }
}

impl Operand {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix('@') {
            return (!path.contains("?(")).then(|| JsonPath::parse(path))?.map(Self::Path);
        }
        Some(Self::Value(match text {
            "true" => true.into(),
            "false" => false.into(),
            _ if text.starts_with(['\'', '"']) => unquoted(text)?.into(),
            number => Value::Number(
                number
                    .parse::<i64>()
                    .map(Number::from)
                    .ok()
                    .or_else(|| number.parse::<f64>().ok().and_then(Number::from_f64))?,
            ),
        }))
    }

    fn of<'v>(&'v self, item: &'v Value) -> Option<&'v Value> {
        match self {
            Self::Path(path) => path.select(item).into_iter().next(),
            Self::Value(value) => Some(value),
        }
    }
}

impl JsonPathStep {
    fn select<'v>(&self, value: &'v Value, out: &mut Vec<&'v Value>) {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => out.extend(map.get(name)),
            (Self::Fields(names), Value::Object(map)) => out.extend(names.iter().filter_map(|name| map.get(name))),
            (Self::Any, Value::Object(map)) => out.extend(map.values()),
            (Self::Any, Value::Array(list)) => out.extend(list),
            (Self::Index(index), Value::Array(list)) => {
                let at = if *index < 0 { index.saturating_add(list.len() as i64) } else { *index };
                out.extend(usize::try_from(at).ok().and_then(|at| list.get(at)));
            }
            (Self::Slice(start, end, step), Value::Array(list)) => {
                let length = list.len() as i64;
                let place = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at.min(length) } as usize;
                let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(length)));
                let taken = list.get(start..end).unwrap_or_default();
                out.extend(taken.iter().step_by(usize::try_from(*step).unwrap_or(1)));
            }
            (Self::Filter(filter), Value::Array(list)) => out.extend(list.iter().filter(|item| filter.holds(item))),
            (Self::Descend, _) => descend(value, out),
            _ => {}
        }
    }
}

fn descend<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    if out.len() >= MOST {
        return;
    }
    out.push(value);
    match value {
        Value::Object(map) => map.values().for_each(|value| descend(value, out)),
        Value::Array(list) => list.iter().for_each(|value| descend(value, out)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prop_assert, sample::select};
    use serde_json::json;

    use super::*;
    use crate::fuzzing::fuzz;

    const PIECES: &[&str] = &[
        ".",
        "..",
        "spec",
        "list",
        "a.b",
        "*",
        "[",
        "]",
        "[0]",
        "[-1:]",
        "[9223372036854775807]",
        "[::0]",
        "[::-1]",
        ":",
        "'",
        "\"",
        ",",
        "?(",
        "@",
        "@.type",
        "==",
        "!=",
        "<",
        ">=",
        "1",
        "1e999",
        "true",
        ")",
        "{",
        "}",
        "\\",
        " ",
        "\u{e9}",
    ];

    #[test]
    fn any_path_is_refused_or_selects_a_bounded_number_of_values() {
        let object = json!({"spec": {"a.b": 1, "list": [1, {"type": "x", "n": [2, "3", null]}]}});
        fuzz(vec(select(PIECES), 0..24), |pieces| {
            if let Some(path) = JsonPath::parse(&pieces.concat()) {
                prop_assert!(path.select(&object).len() <= MOST);
            }
            Ok(())
        });
    }

    #[test]
    fn paths_select_what_kubectl_would_show() {
        let object = json!({"spec": {"a.b": 1, "list": [1, 2, 3]}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "n": 5}, {"type": "Other", "status": "False", "n": 7}]}});
        for (path, expected) in [
            (".spec.list[0]", json!([1])),
            (".spec.list[-1:]", json!([3])),
            (".spec.list[0:2]", json!([1, 2])),
            (".spec.list[*]", json!([1, 2, 3])),
            (".spec['a.b']", json!([1])),
            (".spec.a\\.b", json!([1])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.n>5)].type", json!(["Other"])),
            (".status.conditions[?(@.type!='Ready')].status", json!(["False"])),
            ("..type", json!(["Ready", "Other"])),
            (".nope.nothing", json!([])),
        ] {
            let path = JsonPath::parse(path).unwrap_or_else(|| panic!("{path} is a path"));
            assert_eq!(json!(path.select(&object)), expected, "{path:?}");
        }
        for wrong in [
            &".a".repeat(600),
            ".a[?(@.b[?(@.c)])]",
            "spec",
            ".spec[",
            ".spec[x]",
            ".a..",
            ".list[?(@.a==)]",
            ".list[1:2:0]",
        ] {
            assert_eq!(JsonPath::parse(wrong), None, "{wrong}");
        }
    }
}
