//! Values that a field may be given, by its type and by what its description says: mostly good, some at the edge, some
//! bad.

use fairlead_control::schema::{Field, Type, TypeId, Types, unescaped};
use proptest::string::string_regex;
use serde_json::{Map, Value, json};

use crate::choice::Choice;

const TEXTS: [&str; 24] = [
    "a",
    "b-c",
    "example.com/x",
    "a.example.com",
    "A_B",
    "",
    "-x",
    "x-",
    "a b",
    "é",
    "10.1.2.3",
    "fd00::1",
    "10.0.0.0/8",
    "010.1.2.3",
    "1Gi",
    "http",
    "80",
    "default",
    "/a/b",
    "../a",
    "a/b/c",
    "true",
    "*",
    "https://example.com:8443/p",
];
const QUANTITIES: [&str; 12] = ["1", "100m", "1Gi", "0", "-1", "1.5", "x", "1e3", "0.1", "1Ki", "1n", "5 G"];
const TIMES: [&str; 5] =
    ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00.5Z", "2020-01-01T00:00:00+01:00", "2020-13-01T00:00:00Z", "now"];
const MICRO_TIMES: [&str; 4] = ["2020-01-01T00:00:00.000000Z", "2020-01-01T00:00:00Z", "2020-01-01", ""];
const KEYS: [&str; 9] = ["a", "example.com/k", "cpu", "memory", "storage", "Bad Key!", "", "a/b/c", "requests.cpu"];
/// Deeper objects have only their required fields.
const DEEPEST: usize = 3;

/// A value for `field`, of its type.
pub fn of_field(choice: &mut Choice, types: &Types, field: &Field) -> Value {
    of_type(choice, types, field.r#type, Some(field), 0)
}

fn of_type(choice: &mut Choice, types: &Types, id: TypeId, field: Option<&Field>, depth: usize) -> Value {
    match types.get(id) {
        Type::Object(object) => {
            let mut map = Map::new();
            for inner in object.fields() {
                let share = if inner.required { 97 } else { [35, 20, 8, 0][depth.min(DEEPEST)] };
                if depth <= DEEPEST && choice.percent(share) {
                    map.insert(inner.name.to_string(), of_type(choice, types, inner.r#type, Some(inner), depth + 1));
                }
            }
            Value::Object(map)
        }
        Type::List(item) => {
            let count = *choice.one(&[0, 1, 1, 1, 2, 2]);
            (0..count).map(|_| of_type(choice, types, *item, field, depth + 1)).collect()
        }
        Type::Map(item) => {
            let count = *choice.one(&[0, 1, 1, 2]);
            let entry =
                |choice: &mut Choice| ((*choice.one(&KEYS)).to_owned(), of_type(choice, types, *item, None, depth + 1));
            Value::Object((0..count).map(|_| entry(choice)).collect())
        }
        Type::String => text(choice, field).into(),
        Type::Bytes => (*choice.one(&["YQ==", "", "YQ", "%%%"])).into(),
        Type::Time => (*choice.one(&TIMES)).into(),
        Type::MicroTime => (*choice.one(&MICRO_TIMES)).into(),
        Type::Quantity => match choice.percent(15) {
            true => choice.one(&[json!(5), json!(0.5), json!(-3)]).clone(),
            false => (*choice.one(&QUANTITIES)).into(),
        },
        Type::IntOrString => {
            choice.one(&[json!(0), json!(5), json!(-1), json!(70_000), json!("50%"), json!("150%"), json!("x")]).clone()
        }
        Type::Int32 => (*choice.one(&[0_i64, 1, 2, 5, 80, 100, -1, 65_536, 2_147_483_647])).into(),
        Type::Int64 => (*choice.one(&[0_i64, 1, 2, 30, 1000, -1, 65_536, 1 << 40])).into(),
        Type::Double => choice.one(&[json!(0.5), json!(1), json!(-1)]).clone(),
        Type::Bool => choice.percent(50).into(),
        Type::Any => choice.one(&[json!({"a": 1}), json!("x"), json!(5), json!([1]), json!({})]).clone(),
    }
}

fn text(choice: &mut Choice, field: Option<&Field>) -> String {
    let named = field.map(|field| words(&unescaped(&field.description))).unwrap_or_default();
    match choice.weighted(&[if named.is_empty() { 0 } else { 50 }, 40, 5, 5]) {
        0 => choice.one(&named).clone(),
        1 => (*choice.one(&TEXTS)).to_owned(),
        2 => "a".repeat(*choice.one(&[63, 64, 253, 254, 300])),
        _ => {
            let regex = string_regex("[a-zA-Z0-9./_-]{1,12}").expect("a good regular expression");
            choice.from(regex)
        }
    }
}

/// Values that a description names: in quotes, or capitalised in a sentence about what is allowed.
fn words(description: &str) -> Vec<String> {
    let quoted = description.split(['"', '`', '\'']).skip(1).step_by(2);
    let mut found: Vec<String> = quoted.map(str::to_owned).collect();
    const HINTS: [&str; 8] = ["one of", "alid", "llowed", "an be", "ust be", "efault", "upported", "values"];
    for sentence in description.split(['.', '\n']).filter(|sentence| HINTS.iter().any(|hint| sentence.contains(hint))) {
        let words = sentence.split(|c: char| !c.is_ascii_alphanumeric()).skip(1);
        found.extend(words.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase())).map(str::to_owned));
    }
    found.retain(|word| (1..40).contains(&word.len()) && !word.contains(' '));
    found.sort();
    found.dedup();
    found
}

/// A value that no field of this type takes.
pub fn wrong(choice: &mut Choice, types: &Types, id: TypeId) -> Value {
    let others: &[Value] = match types.get(id) {
        Type::String | Type::Bytes | Type::Time | Type::MicroTime => {
            &[json!(5), json!({"a": 1}), json!(["a"]), json!(true)]
        }
        Type::Int32 | Type::Int64 | Type::Double => &[json!("5"), json!(1.5), json!({}), json!(1e30), json!(true)],
        Type::Bool => &[json!("true"), json!(1)],
        Type::List(_) => &[json!({}), json!("a"), json!(3)],
        Type::Object(_) | Type::Map(_) => &[json!([]), json!("a"), json!(3)],
        Type::Quantity | Type::IntOrString => &[json!({}), json!([]), json!(true)],
        Type::Any => &[json!(null)],
    };
    choice.one(others).clone()
}
