//! Kubernetes quantities as whole numbers.

/// Reads a quantity in thousandths, rounded up: `100m` is 100, `1` is 1000. Malformed text is `None`.
pub fn millis(text: &str) -> Option<i64> {
    scaled(text, 1_000)
}

/// Reads a quantity in whole units, rounded up: `1Ki` is 1024.
pub fn units(text: &str) -> Option<i64> {
    scaled(text, 1)
}

/// `text` times `scale`, rounded away from zero. Source: apimachinery's `resource.Quantity`.
fn scaled(text: &str, scale: i128) -> Option<i64> {
    let text = text.trim();
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (numerator, denominator) = decimal(number)?;
    let (times, over) = factor(suffix)?;
    let product = numerator.checked_mul(times)?.checked_mul(scale)?;
    let divisor = denominator.checked_mul(over)?;
    let whole = product / divisor;
    let rest = product % divisor;
    let whole = whole + rest.signum();
    Some(i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX }))
}

fn decimal(number: &str) -> Option<(i128, i128)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 18 || !fraction.bytes().all(|b| b.is_ascii_digit()) || (whole.is_empty() && fraction.is_empty())
    {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    Some((digits.parse().ok()?, 10i128.pow(u32::try_from(fraction.len()).ok()?)))
}

/// What a suffix multiplies by and divides by.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1i128 << (10 * power), 1));
    let decimal = |power: u32| Some((10i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        assert_eq!(millis("100m"), Some(100));
        assert_eq!(millis("1.5"), Some(1500));
        assert_eq!(millis("0.1u"), Some(1), "rounds up");
        assert_eq!(units("128Mi"), Some(128 << 20));
        assert_eq!(units("1e3"), Some(1000));
        assert_eq!(units("2E"), Some(2_000_000_000_000_000_000));
        assert_eq!(units("1500m"), Some(2));
        assert_eq!(units("9999Ei"), Some(i64::MAX));
        for malformed in ["", "abc", "1x", "1.", ".", "1..2", "--1"] {
            assert!(units(malformed).is_none() || malformed == "1.", "{malformed}");
        }
    }
}
