//! Texts, numbers and enumerations: what a schema asks of values without parts.

use serde_json::{Number, Value, json};

use super::{CheckedValue, formats, invalid, shown, wrong_type};
use crate::{cel::pattern, custom::structural::Structural, kinds::FieldError};

/// Length, pattern and format of a text.
pub fn text(path: &str, schema: &Structural, text: &str, found: &mut CheckedValue) {
    let length = text.chars().count() as i64;
    let value = || json!(text);
    if let Some(most) = schema.checks.max_length.filter(|most| length > *most) {
        found.add(FieldError::too_long(shown(path), usize::try_from(most).unwrap_or_default()));
    }
    if let Some(least) = schema.checks.min_length.filter(|least| length < *least) {
        found.add(invalid(path, &value(), format!("should be at least {least} chars long")));
    }
    if let Some((pattern, Ok(compiled))) = schema.checks.pattern.as_ref().map(|text| (text, pattern::compile(text)))
        && !compiled.regex().is_match(text)
    {
        found.add(invalid(path, &value(), format!("should match '{pattern}'")));
    }
    if !formats::is(&schema.format, text) {
        found.add(wrong_type(path, &schema.format, text));
    }
}

/// Range and divisor of a number.
pub fn number(path: &str, schema: &Structural, number: &Number, found: &mut CheckedValue) {
    let checks = &schema.checks;
    let value = || Value::Number(number.clone());
    if let Some(divisor) = checks.multiple_of.as_ref().filter(|divisor| divisor.as_f64().is_none_or(|d| d <= 0.0)) {
        let why = format!("factor MultipleOf declared for {path} must be positive: {}", plain(divisor));
        found.add(FieldError::invalid(shown(path), &Value::Number(divisor.clone()), why));
    } else if let Some(divisor) = checks.multiple_of.as_ref().filter(|divisor| !is_multiple(number, divisor)) {
        found.add(invalid(path, &value(), format!("should be a multiple of {}", plain(divisor))));
    }
    if let Some(most) = &checks.maximum {
        let over = compare(number, most);
        let (fails, words) = match checks.exclusive_maximum {
            true => (over.is_none_or(|over| over.is_ge()), "less than"),
            false => (over.is_none_or(|over| over.is_gt()), "less than or equal to"),
        };
        if fails {
            found.add(invalid(path, &value(), format!("should be {words} {}", plain(most))));
        }
    }
    if let Some(least) = &checks.minimum {
        let under = compare(number, least);
        let (fails, words) = match checks.exclusive_minimum {
            true => (under.is_none_or(|under| under.is_le()), "greater than"),
            false => (under.is_none_or(|under| under.is_lt()), "greater than or equal to"),
        };
        if fails {
            found.add(invalid(path, &value(), format!("should be {words} {}", plain(least))));
        }
    }
}

/// The value is one of those listed, if any are.
pub fn enumerated(path: &str, schema: &Structural, value: &Value, found: &mut CheckedValue) {
    let allowed = &schema.checks.r#enum;
    let same = |one: &Value| match (one.as_f64(), value.as_f64()) {
        (Some(one), Some(value)) => one == value,
        _ => one == value,
    };
    if allowed.is_empty() || value.is_null() && schema.nullable || allowed.iter().any(same) {
        return;
    }
    let words: Vec<String> =
        allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    found.add(FieldError::not_supported(shown(path), value, &words));
}

/// A number as Go prints it: without a fraction where there is none.
fn plain(number: &Number) -> String {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => whole.to_string(),
        (None, Some(float)) => float.to_string(),
        (None, None) => number.to_string(),
    }
}

fn compare(a: &Number, b: &Number) -> Option<std::cmp::Ordering> {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn is_multiple(number: &Number, divisor: &Number) -> bool {
    match (number.as_i64(), divisor.as_i64()) {
        (Some(number), Some(divisor)) if divisor != 0 => number.checked_rem(divisor).unwrap_or(0) == 0,
        _ => match (number.as_f64(), divisor.as_f64()) {
            (Some(number), Some(divisor)) if divisor > 0.0 => (number / divisor).fract() == 0.0,
            _ => true,
        },
    }
}
