//! Resource quantities as numbers: thousandths of a core for `cpu`, whole units (bytes) for the rest, both rounded up.

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

pub fn in_unit_of(resource: &str, quantity: &Quantity) -> Option<i64> {
    let milli = parse_milli(&quantity.0)?;
    let value =
        if resource == "cpu" { milli } else { milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) != 0) };
    i64::try_from(value).ok()
}

/// Thousandths, rounded up: `100m`, `1.5`, `64Mi`, `1e3`.
pub fn parse_milli(text: &str) -> Option<i128> {
    let text = text.trim();
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
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok().filter(|e: &i32| e.abs() <= 18)?;
            let power = 10i128.pow(exponent.unsigned_abs());
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 12 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    let digits: i128 = format!("{}{fraction}", whole.trim_start_matches(['+', '-'])).parse().ok()?;
    let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?) * denominator;
    let scaled = digits.checked_mul(numerator)?.checked_mul(1000)?;
    Some(sign * (scaled / scale + i128::from(scaled % scale != 0)))
}

#[cfg(test)]
mod tests {
    use super::parse_milli;

    #[test]
    fn quantities_of_every_notation_are_read() {
        for (text, milli) in [
            ("100m", 100),
            ("1.5", 1500),
            ("2", 2000),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("1e3", 1_000_000),
            ("1n", 1),
        ] {
            assert_eq!(parse_milli(text), Some(milli), "{text}");
        }
        for text in ["", "x", "1Zi", "1e99"] {
            assert_eq!(parse_milli(text), None, "{text}");
        }
    }
}
