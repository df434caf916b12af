//! Resource quantities as numbers: thousandths of a core for `cpu`, whole units (bytes) for the rest, both rounded away
//! from zero.

use k8s_openapi::{api::core::v1::Container, apimachinery::pkg::api::resource::Quantity};

/// The container's request of `resource`; `None` where there is none.
pub fn request(container: &Container, resource: &str) -> Option<i64> {
    let requests = container.resources.as_ref()?.requests.as_ref()?;
    in_unit_of(resource, requests.get(resource)?)
}

/// The container's limit of `resource`; `None` where there is none.
pub fn limit(container: &Container, resource: &str) -> Option<i64> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    in_unit_of(resource, limits.get(resource)?)
}

/// `quantity` in the unit in which `resource` is counted, at most what an `i64` holds, as the scheduler counts it;
/// `None` where it is none.
pub fn in_unit_of(resource: &str, quantity: &Quantity) -> Option<i64> {
    let milli = thousandths(&quantity.0)?;
    let amount = if resource == "cpu" { milli } else { divide(milli, 1000) };
    Some(i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX }))
}

/// Thousandths, rounded away from zero: `100m`, `1.5`, `64Mi`, `1e3`. The notation is that of apimachinery's
/// `resource.Quantity`.
fn thousandths(text: &str) -> Option<i128> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (numerator, denominator): (i128, i128) = match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "" => (1, 1),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i64 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            // Beyond these every amount is the largest or the smallest there is.
            let power = 10i128.pow(exponent.clamp(-24, 36).unsigned_abs() as u32);
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    };
    let (sign, number) = match number.strip_prefix('-') {
        Some(number) => (-1, number),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || fraction.len() > MAX_DECIMALS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?) * denominator;
    // Digits alone fail to be a number only where they are too many.
    let amount = digits.parse::<i128>().unwrap_or(i128::MAX);
    Some(sign * divide(amount.saturating_mul(numerator).saturating_mul(1000), scale))
}

/// Rounded away from zero, as apimachinery's `Quantity.Value`.
fn divide(value: i128, by: i128) -> i128 {
    value / by + (value % by).signum()
}

/// Digits behind the point: more than the API keeps (it rounds to billionths).
const MAX_DECIMALS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_every_notation_are_read() {
        for (text, milli) in [
            ("0", 0),
            ("100m", 100),
            ("1.5", 1500),
            (".5", 500),
            ("2.", 2000),
            ("+2", 2000),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("0.5Ki", 512_000),
            ("1k", 1_000_000),
            ("1e3", 1_000_000),
            ("1E-2", 10),
            ("1E", 1_000_000_000_000_000_000_000),
        ] {
            assert_eq!(thousandths(text), Some(milli), "{text}");
        }
        for text in ["", ".", "m", "x", "1Zi", "1 Mi", "1e", "1.2.3", "1-2", "+-1", "1e3m"] {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_less_than_a_unit_is_rounded_away_from_zero() {
        assert_eq!(thousandths("1n"), Some(1));
        assert_eq!(thousandths("1.0001"), Some(1001));
        assert_eq!(thousandths("-1.5m"), Some(-2));
        let memory = |text: &str| in_unit_of("memory", &Quantity(text.into()));
        assert_eq!((memory("1.5"), memory("100m"), memory("-1.5")), (Some(2), Some(1), Some(-2)));
    }

    #[test]
    fn processors_are_counted_in_thousandths_and_the_rest_in_units() {
        let container: Container = serde_json::from_value(serde_json::json!({"name": "a", "resources": {
            "requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "1"}}}))
        .expect("a container");
        assert_eq!((request(&container, "cpu"), request(&container, "memory")), (Some(250), Some(64 << 20)));
        assert_eq!((limit(&container, "cpu"), limit(&container, "memory")), (Some(1000), None));
    }

    #[test]
    fn a_quantity_beyond_all_numbers_is_the_largest() {
        assert_eq!(in_unit_of("memory", &Quantity("9E".into())), Some(9_000_000_000_000_000_000));
        let digits = format!("{}Ei", "9".repeat(60));
        for (resource, text) in
            [("cpu", "10P"), ("memory", "8Ei"), ("memory", "10E"), ("memory", "1e99"), ("cpu", &digits)]
        {
            assert_eq!(in_unit_of(resource, &Quantity(text.into())), Some(i64::MAX), "{resource} {text}");
        }
        assert_eq!(in_unit_of("memory", &Quantity("-10E".into())), Some(i64::MIN));
    }
}
