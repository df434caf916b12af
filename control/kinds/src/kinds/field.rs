//! One reason why an object is refused, spelled as Kubernetes' `field.Error` spells it. Decides nothing itself.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    error_budget::{self, LONGEST},
    paths_on_demand,
};

/// The path of a field of what stands at `path`. Most paths that a check makes are never shown: this costs a fifth of
/// `format!`, and nothing where [`paths_on_demand`] are not asked for.
pub fn child(path: &str, field: &str) -> String {
    if !paths_on_demand::are_made() {
        return String::new();
    }
    [of_parent(path), ".", field].concat()
}

/// The path of an item of the list at `path`.
pub fn item(path: &str, index: usize) -> String {
    if !paths_on_demand::are_made() {
        return String::new();
    }
    [of_parent(path), "[", &index.to_string(), "]"].concat()
}

/// The path of what stands under a key of the map at `path`.
pub fn entry(path: &str, key: &str) -> String {
    if !paths_on_demand::are_made() {
        return String::new();
    }
    [of_parent(path), "[", key, "]"].concat()
}

/// A path as those of what stands below begin. A key may be as long as a whole body, and have as many items below it:
/// its path is not repeated whole for each.
fn of_parent(path: &str) -> &str {
    &path[..path.floor_char_boundary(LONGEST)]
}

/// One cause of an `Invalid` Status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `spec.template.spec.containers[0].name`
    pub path: String,
    /// What kind of rule is broken; clients read it.
    pub reason: FieldErrorReason,
    /// Without the path: `Invalid value: 70000: must be between 1 and 65535, inclusive`
    pub message: String,
}

const NULL_VALUE: &str = "Invalid value: null";

/// `StatusCause.reason` of a field error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorReason {
    /// `FieldValueRequired`
    Required,
    /// `FieldValueInvalid`
    Invalid,
    /// `FieldValueTypeInvalid`: the value is of another type than the schema says.
    TypeInvalid,
    /// `FieldValueNotSupported`: the value is none of those allowed.
    NotSupported,
    /// `FieldValueDuplicate`: another item of the list has it.
    Duplicate,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueTooLong`: the text has too many bytes.
    TooLong,
    /// `FieldValueNotFound`: it names something that does not exist.
    NotFound,
    /// `FieldValueTooMany`: the list has too many items.
    TooMany,
    /// `InternalError`: it could not be checked.
    Internal,
    /// One beyond what is told: see [`error_budget`]. It has neither path nor message.
    Untold,
}

impl FieldError {
    /// Where this says that nothing stands, if it does: Kubernetes shows the zero of the field's type there.
    pub fn path_of_null(&self) -> Option<&str> {
        self.message.starts_with(NULL_VALUE).then_some(&*self.path)
    }

    /// Shows a value where [`Self::path_of_null`] found nothing.
    pub fn show_instead_of_null(&mut self, value: &Value) {
        if let Some(rest) = self.message.strip_prefix(NULL_VALUE) {
            self.message = format!("Invalid value: {}{rest}", shown(value));
        }
    }

    /// A required field is missing.
    pub fn required(path: impl Into<String>, detail: &str) -> Self {
        error_budget::reason(path, FieldErrorReason::Required, || match detail {
            "" => "Required value".to_owned(),
            detail => format!("Required value: {detail}"),
        })
    }

    /// The value of a field is not valid, for a reason that may be empty.
    pub fn invalid(path: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        error_budget::reason(path, FieldErrorReason::Invalid, || match detail.as_ref() {
            "" => format!("Invalid value: {}", shown(value)),
            detail => format!("Invalid value: {}: {detail}", shown(value)),
        })
    }

    /// The value of a field is not valid, and is too large or too secret to be repeated.
    pub fn invalid_unnamed(path: impl Into<String>, detail: impl AsRef<str>) -> Self {
        error_budget::reason(path, FieldErrorReason::Invalid, || format!("Invalid value: {}", detail.as_ref()))
    }

    /// One error for each reason why a value is not valid.
    pub fn invalid_each(path: impl Into<String>, value: &Value, details: Vec<String>) -> impl Iterator<Item = Self> {
        // Not of the iterator, which may outlive the value: there are few details.
        let path = path.into();
        let errors: Vec<Self> = details.iter().map(|detail| Self::invalid(path.as_str(), value, detail)).collect();
        errors.into_iter()
    }

    /// `supported` is named in the given order. A field that is not there has the empty text.
    pub fn not_supported(path: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let value = || if value.is_null() { "\"\"".to_owned() } else { shown(value) };
        error_budget::reason(path, FieldErrorReason::NotSupported, || not_supported(&value(), supported))
    }

    /// The same of a value that is shown as this text.
    pub fn not_supported_shown(path: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        error_budget::reason(path, FieldErrorReason::NotSupported, || not_supported(value, supported))
    }

    /// A list names something twice.
    pub fn duplicate(path: impl Into<String>, value: &Value) -> Self {
        error_budget::reason(path, FieldErrorReason::Duplicate, || format!("Duplicate value: {}", shown(value)))
    }

    /// A field may not be set here.
    pub fn forbidden(path: impl Into<String>, detail: &str) -> Self {
        error_budget::reason(path, FieldErrorReason::Forbidden, || format!("Forbidden: {detail}"))
    }

    /// A field could not be checked.
    pub fn internal(path: impl Into<String>, detail: &str) -> Self {
        error_budget::reason(path, FieldErrorReason::Internal, || format!("Internal error: {detail}"))
    }

    /// A field names something that does not exist.
    pub fn not_found(path: impl Into<String>, value: &Value) -> Self {
        error_budget::reason(path, FieldErrorReason::NotFound, || format!("Not found: {}", shown(value)))
    }

    /// A field that may not change once it is set.
    pub fn immutable(path: impl Into<String>, value: &Value) -> Self {
        Self::invalid(path, value, "field is immutable")
    }

    /// Something, if the number at `path` is there and below zero.
    pub fn negative(path: impl Into<String>, value: &Value) -> Option<Self> {
        value.as_i64().filter(|n| *n < 0).map(|_| Self::invalid(path, value, "must be greater than or equal to 0"))
    }

    /// Something, if the number at `path` is there and not above zero.
    pub fn not_positive(path: impl Into<String>, value: &Value) -> Option<Self> {
        value.as_i64().filter(|n| *n <= 0).map(|_| Self::invalid(path, value, "must be greater than zero"))
    }

    /// Something, if there is no text, or an empty one.
    pub fn missing(path: impl Into<String>, value: &Value) -> Option<Self> {
        value.as_str().is_none_or(str::is_empty).then(|| Self::required(path, ""))
    }

    /// Something, if there is a text that is none of `supported`. An empty text is a text.
    pub fn unsupported(path: impl Into<String>, value: &Value, supported: &[&str]) -> Option<Self> {
        let unknown = value.as_str().is_some_and(|text| !supported.contains(&text));
        unknown.then(|| Self::not_supported(path, value, supported))
    }

    /// Every reason of `check` against a text, at `path`.
    pub fn each(path: impl Into<String>, value: &Value, check: fn(&str) -> Vec<String>) -> Vec<Self> {
        let path = path.into();
        let why = check(value.as_str().unwrap_or_default()).into_iter();
        why.map(|why| Self::invalid(path.as_str(), value, why)).collect()
    }

    /// A list or map has too many items.
    pub fn too_many(path: impl Into<String>, found: usize, most: usize) -> Self {
        error_budget::reason(path, FieldErrorReason::TooMany, || {
            format!("Too many: {found}: must have at most {most} items")
        })
    }

    /// A text is too long.
    pub fn too_long(path: impl Into<String>, max: usize) -> Self {
        error_budget::reason(path, FieldErrorReason::TooLong, || format!("Too long: may not be more than {max} bytes"))
    }
}

fn not_supported(value: &str, supported: &[&str]) -> String {
    let supported: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
    format!("Unsupported value: {value}: supported values: {}", supported.join(", "))
}

/// A value as messages repeat it: a text in Go's quotes, anything else as JSON; of a long one the beginning.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let shown = &text[..text.floor_char_boundary(MOST_SHOWN)];
            let more = if shown.len() < text.len() { "…" } else { "" };
            [&go_quoted(shown), more].concat()
        }
        value => {
            let mut out = String::new();
            if !write_in_order(value, &mut out) {
                out.truncate(out.floor_char_boundary(MOST_SHOWN));
                out.push('…');
            }
            out
        }
    }
}

/// Bytes that are shown of a value.
const MOST_SHOWN: usize = 2 << 10;

/// Fields of label selectors, which messages show most of all structs, in the order in which Go writes them.
const STRUCTS: [&[&str]; 2] = [&["matchLabels", "matchExpressions"], &["key", "operator", "values"]];

/// Writes JSON until there is more than is shown; answers whether that was all. Go writes maps in order; what has other
/// than texts in it is a struct.
fn write_in_order(value: &Value, out: &mut String) -> bool {
    match value {
        Value::Object(map) => {
            out.push('{');
            let mut fields: Vec<(&String, &Value)> = map.iter().collect();
            if let Some(order) = STRUCTS.iter().find(|order| map.keys().all(|name| order.contains(&&**name))) {
                fields.sort_by_key(|(name, _)| order.iter().position(|field| field == name));
            } else if map.values().all(Value::is_string) {
                fields.sort_unstable_by_key(|(name, _)| *name);
            }
            for (at, (name, value)) in fields.into_iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write_text(name, out);
                out.push(':');
                if !write_in_order(value, out) {
                    return false;
                }
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (at, item) in list.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                if !write_in_order(item, out) {
                    return false;
                }
            }
            out.push(']');
        }
        Value::String(text) => write_text(text, out),
        scalar => out.push_str(&scalar.to_string()),
    }
    out.len() <= MOST_SHOWN
}

/// A text as JSON has it. Of a longer one than is shown, what is cut off later is not written.
fn write_text(text: &str, out: &mut String) {
    let begun = &text[..text.floor_char_boundary(MOST_SHOWN.saturating_add(1))];
    out.push_str(&Value::from(begun).to_string());
}

/// A value as Go's `%v` writes it: `map[a:1 b:[x y]]`.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let fields = sorted.into_iter().map(|(key, value)| format!("{key}:{}", go_value(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
        scalar => scalar.to_string(),
    }
}

/// A text as Go's `%q` writes it.
pub fn go_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            '\u{80}'..='\u{a0}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_fields_and_items_are_those_of_kubernetes() {
        let container = item(&child("spec", "containers"), 10);
        assert_eq!(child(&container, "name"), "spec.containers[10].name");
        assert_eq!(item("", usize::MAX), format!("[{}]", usize::MAX));
    }

    #[test]
    fn a_label_selector_is_shown_in_the_order_of_its_struct() {
        let expression = json!({"values": ["a"], "operator": "In", "key": "k"});
        let selector = json!({"matchExpressions": [expression], "matchLabels": {"b": "1", "a": "2"}});
        let shown =
            r#"{"matchLabels":{"a":"2","b":"1"},"matchExpressions":[{"key":"k","operator":"In","values":["a"]}]}"#;
        assert_eq!(FieldError::invalid("a", &selector, "").message, format!("Invalid value: {shown}"));
    }

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        assert_eq!(go_quoted("é\u{7}\"\\\n\0"), r#""é\a\"\\\n\x00""#);
        assert_eq!(FieldError::invalid("a", &json!("x\t"), "").message, r#"Invalid value: "x\t""#);
        assert_eq!(FieldError::invalid("a", &json!(5), "why").message, "Invalid value: 5: why");
    }
}
