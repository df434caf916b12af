//! Durations as Go writes them: `1h30m`. Reads what `time.ParseDuration` reads, and refuses the rest in its words.

/// Why a text is no duration, in the words of Go's `time.ParseDuration`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GoDurationError {
    /// No number, or one that is too large.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number alone.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// `5d`
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// `d`
        unit: String,
        /// All of it.
        text: String,
    },
}

/// A second.
pub const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// A duration as Go writes it (`1h30m`, `1.5s`), in nanoseconds.
pub fn go_duration(text: &str) -> Result<i128, GoDurationError> {
    let invalid = || GoDurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(invalid());
        }
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let nanos: i128 = match unit {
            "" => return Err(GoDurationError::MissingUnit(text.to_owned())),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => NANOS_PER_SECOND,
            "m" => 60 * NANOS_PER_SECOND,
            "h" => 3_600 * NANOS_PER_SECOND,
            unit => return Err(GoDurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() }),
        };
        let digits =
            |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<i64>().map_err(|_| invalid()) };
        // More places than these are less than a nanosecond.
        let fraction = &fraction[..fraction.len().min(15)];
        let scale = 10i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
        total += i128::from(digits(whole)?) * nanos + i128::from(digits(fraction)?) * nanos / scale;
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = tail;
    }
    Ok(if negative { -total } else { total })
}
