//! Kubernetes quantities: `500m`, `1Gi`. Exact numbers of nine decimal places, and the form in which they are written.
//!
//! Source: apimachinery's `resource.Quantity`.

use std::{cmp::Ordering, fmt};

use serde_json::Value;

/// A quantity. Compared by its number alone: `1024Mi` equals `1Gi`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// The number in billionths.
    nanos: i128,
    form: QuantityFormat,
}

/// Which suffixes a quantity is written with: those it was read with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QuantityFormat {
    /// `k`, `M`, `m`, and none.
    Decimal,
    /// `e3`
    Exponent,
    /// `Ki`, `Mi`
    Binary,
}

const NANOS: i128 = 1_000_000_000;
/// The largest number that a quantity can be, in billionths.
const MAX: i128 = (i64::MAX as i128) * NANOS;
/// More decimal places than this do not change a quantity but by rounding up.
const PLACES: usize = 18;

impl Quantity {
    /// Nothing of anything.
    pub const ZERO: Self = Self { nanos: 0, form: QuantityFormat::Decimal };

    /// A whole number.
    pub const fn of_units(units: i64) -> Self {
        Self { nanos: units as i128 * NANOS, form: QuantityFormat::Decimal }
    }

    /// Reads a quantity. What is smaller than a billionth is rounded away from zero, what is too large becomes the
    /// largest. `None` if the text is malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let (form, scale) = Scale::of(suffix)?;
        let nanos = scale.nanos(whole, fraction).min(MAX);
        let form = if form == QuantityFormat::Binary && nanos < NANOS { QuantityFormat::Decimal } else { form };
        Some(Self { nanos: if negative { -nanos } else { nanos }, form })
    }

    /// Reads a quantity of a JSON object, where it is a text or a number.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is more than nothing.
    pub fn is_positive(self) -> bool {
        self.nanos > 0
    }

    /// Whether it is a whole number.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// In whole units, rounded away from zero.
    pub fn units(self) -> i64 {
        self.rounded(NANOS)
    }

    /// In thousandths, rounded away from zero.
    pub fn millis(self) -> i64 {
        self.rounded(NANOS / 1_000)
    }

    /// Rounded away from zero to whole thousandths.
    pub fn rounded_to_millis(self) -> Self {
        let unit = NANOS / 1_000;
        Self { nanos: (self.nanos / unit + (self.nanos % unit).signum()) * unit, ..self }
    }

    /// The sum, in the form of the first.
    pub fn saturating_add(self, other: Self) -> Self {
        let form = if self.nanos == 0 { other.form } else { self.form };
        Self { nanos: self.nanos.saturating_add(other.nanos).clamp(-MAX, MAX), form }
    }

    /// The difference, in the form of the first.
    pub fn saturating_sub(self, other: Self) -> Self {
        let form = if self.nanos == 0 { other.form } else { self.form };
        Self { nanos: self.nanos.saturating_sub(other.nanos).clamp(-MAX, MAX), form }
    }

    fn rounded(self, unit: i128) -> i64 {
        let whole = self.nanos / unit + (self.nanos % unit).signum();
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The canonical text: the largest suffix that leaves a whole number.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nanos.abs() < 1024 * NANOS;
        if self.form == QuantityFormat::Binary && self.is_whole() && !small {
            let (mut number, mut power) = (self.nanos / NANOS, 0);
            while number % 1024 == 0 && power + 1 < BINARY.len() {
                (number, power) = (number / 1024, power + 1);
            }
            return write!(f, "{number}{}", BINARY[power]);
        }
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let (mut number, mut power) = (self.nanos, 0);
        while number % 1_000 == 0 && power + 1 < DECIMAL.len() {
            (number, power) = (number / 1_000, power + 1);
        }
        match (self.form, DECIMAL[power]) {
            (QuantityFormat::Exponent, (_, exponent)) if exponent != 0 => write!(f, "{number}e{exponent}"),
            (_, (suffix, exponent)) => write!(f, "{number}{}", if exponent == 0 { "" } else { suffix }),
        }
    }
}

/// By powers of 1024.
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// By powers of 1000 from a billionth on, with the power of ten.
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// What a suffix multiplies by.
enum Scale {
    /// Powers of ten.
    Ten(i64),
    /// Powers of two.
    Two(u32),
}

impl Scale {
    fn of(suffix: &str) -> Option<(QuantityFormat, Self)> {
        if suffix.is_empty() {
            return Some((QuantityFormat::Decimal, Self::Ten(0)));
        }
        if let Some((_, exponent)) = DECIMAL.iter().find(|(text, _)| *text == suffix) {
            return Some((QuantityFormat::Decimal, Self::Ten((*exponent).into())));
        }
        if let Some(power) = BINARY.iter().position(|text| *text == suffix) {
            return Some((QuantityFormat::Binary, Self::Two(10 * u32::try_from(power).ok()?)));
        }
        let exponent: i64 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
        Some((QuantityFormat::Exponent, Self::Ten(exponent)))
    }

    /// `whole.fraction`, scaled, in billionths and rounded up.
    fn nanos(&self, whole: &str, fraction: &str) -> i128 {
        match *self {
            Self::Ten(exponent) => {
                let digits = format!("{whole}{fraction}");
                let length = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
                shifted(digits.trim_start_matches('0'), exponent.saturating_add(9).saturating_sub(length))
            }
            Self::Two(power) => {
                let whole = shifted(whole.trim_start_matches('0'), 0);
                let (kept, rest) = fraction.split_at(fraction.len().min(PLACES));
                let places = u32::try_from(kept.len()).unwrap_or(u32::MAX);
                // At most 10^18 times 2^60.
                let part = shifted(kept.trim_start_matches('0'), 0) << power;
                let part = match places {
                    0..=9 => part * 10i128.pow(9 - places),
                    _ => divided_up(part, 10i128.pow(places - 9)),
                };
                let rest = i128::from(rest.bytes().any(|digit| digit != b'0'));
                let scaled = whole.checked_mul(NANOS << power).unwrap_or(MAX);
                scaled.saturating_add(part).saturating_add(rest)
            }
        }
    }
}

/// A text of digits times a power of ten, rounded up; the largest quantity if it is larger.
fn shifted(digits: &str, power: i64) -> i128 {
    /// More digits than any quantity has in billionths.
    const MOST: i64 = 30;
    let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    if length == 0 {
        return 0;
    }
    if length.saturating_add(power) > MOST {
        return MAX;
    }
    let number = |digits: &str| digits.parse::<i128>().unwrap_or_default();
    match u32::try_from(power) {
        Ok(power) => number(digits) * 10i128.pow(power),
        Err(_) => {
            let kept = usize::try_from(length.saturating_add(power)).unwrap_or(0);
            let (kept, rest) = digits.split_at(kept.min(digits.len()));
            number(kept) + i128::from(rest.bytes().any(|digit| digit != b'0'))
        }
    }
}

fn divided_up(number: i128, by: i128) -> i128 {
    number / by + i128::from(number % by != 0)
}

/// Reads a quantity in thousandths, rounded up: `100m` is 100, `1` is 1000. Malformed text is `None`.
pub fn millis(text: &str) -> Option<i64> {
    Quantity::parse(text.trim()).map(Quantity::millis)
}

/// Reads a quantity in whole units, rounded up: `1Ki` is 1024.
pub fn units(text: &str) -> Option<i64> {
    Quantity::parse(text.trim()).map(Quantity::units)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!(units("-1500m"), Some(-2));
        assert_eq!(units("9999Ei"), Some(i64::MAX));
        assert_eq!(units("1.000000000000000001Ei"), Some((1 << 60) + 2), "rounds up");
        assert_eq!(units("1e99999999999999999"), Some(i64::MAX));
        assert_eq!(units("1e-99999999999999999"), Some(1));
        assert_eq!(units(&"9".repeat(5000)), Some(i64::MAX));
        for malformed in ["", "abc", "1x", ".", "1..2", "--1", "+-1", "1e", "1Kii", "é"] {
            assert_eq!(units(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn the_canonical_form_has_the_largest_suffix_that_leaves_a_whole_number() {
        for (text, canonical) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("512", "512"),
            ("1023Ki", "1023Ki"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("12E2", "1200"),
            ("1500e3", "1500e3"),
            ("0", "0"),
            ("0Gi", "0"),
            ("-0.25", "-250m"),
            ("0.1n", "1n"),
            ("100000000Ei", "9223372036854775807"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn equal_numbers_are_equal_in_any_form() {
        let of = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(of("1024Mi"), of("1Gi"));
        assert!(of("1.1") > of("1099m"));
        assert_eq!(of("1Gi").saturating_add(of("1Gi")).to_string(), "2Gi");
        assert_eq!(of("0").saturating_add(of("1Gi")).to_string(), "1Gi");
        assert_eq!(of("1").saturating_sub(of("250m")).to_string(), "750m");
        assert_eq!(of("1u").rounded_to_millis().to_string(), "1m");
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_the_same_number_and_canonical(text in "[+-]?[0-9]{0,25}[.]?[0-9]{0,25}(|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]{1,3})") {
            if let Some(quantity) = Quantity::parse(&text) {
                let canonical = quantity.to_string();
                let again = Quantity::parse(&canonical).unwrap();
                prop_assert_eq!(quantity, again);
                prop_assert_eq!(again.to_string(), canonical);
            }
        }
    }
}
