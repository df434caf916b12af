//! Amounts that are a number or a percentage: `maxSurge`, `minAvailable`.

use serde_json::Value;

use super::FieldError;

const NOT_A_PERCENTAGE: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
    '93%', regex used for validation is '[0-9]+%')";

/// Reasons why an amount is neither a number from 0 on nor a percentage.
pub fn validate(path: &str, value: &Value) -> Option<FieldError> {
    match value.as_str() {
        Some(text) if percent(text).is_none() => Some(FieldError::invalid(path, value, NOT_A_PERCENTAGE)),
        Some(_) => None,
        None => FieldError::negative(path, value),
    }
}

/// Why a percentage is more than everything.
pub fn not_more_than_all(path: &str, value: &Value) -> Option<FieldError> {
    let more = value.as_str().and_then(percent).is_some_and(|percent| percent > 100);
    more.then(|| FieldError::invalid(path, value, "must not be greater than 100%"))
}

/// The number, or that of the percentage; 0 for what is neither.
pub fn amount(value: &Value) -> i64 {
    match value.as_str() {
        Some(text) => percent(text).or_else(|| text.parse().ok()).unwrap_or_default(),
        None => value.as_i64().unwrap_or_default(),
    }
}

/// `25` of `25%`. A number that is too large for any use saturates.
fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    let numeric = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    numeric.then(|| digits.parse().unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_amount_is_a_number_or_a_percentage() {
        for good in [json!(0), json!(3), json!("0%"), json!("200%"), Value::Null] {
            assert_eq!(validate("p", &good), None, "{good}");
        }
        for bad in [json!(-1), json!("3"), json!("%"), json!("-1%"), json!("1.5%"), json!("a%")] {
            assert!(validate("p", &bad).is_some(), "{bad}");
        }
        assert!(not_more_than_all("p", &json!("101%")).is_some());
        assert!(not_more_than_all("p", &json!("100%")).is_none() && not_more_than_all("p", &json!(101)).is_none());
        assert_eq!((amount(&json!("25%")), amount(&json!(4)), amount(&json!("x"))), (25, 4, 0));
    }
}
