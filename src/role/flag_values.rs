//! How the values of flags are written: ranges of ports, true and false, durations.

use std::{ops::RangeInclusive, time::Duration};

/// A range that is empty, starts at 0 or is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a range of ports is written FROM-TO, such as 30000-32767")]
pub struct PortRangeError;

/// `30000-32767`
pub fn parse_port_range(text: &str) -> Result<RangeInclusive<u16>, PortRangeError> {
    let range = text.split_once('-').and_then(|(from, to)| Some(from.parse().ok()?..=to.parse().ok()?));
    match range {
        Some(range) if !range.is_empty() && *range.start() > 0 => Ok(range),
        _ => Err(PortRangeError),
    }
}

/// A text that is neither true nor false.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is true or false")]
pub struct BoolError;

/// As Go's `strconv.ParseBool` reads it, by which kube-apiserver reads its flags.
pub fn parse_bool(text: &str) -> Result<bool, BoolError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(BoolError),
    }
}

/// A text that is no duration, or one beyond what a [`Duration`] holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a duration is written such as 30s, 5m or 1h30m")]
pub struct DurationError;

/// `90s`, `5m`, `1h30m`, `500ms`, or plain seconds.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0).ok_or(DurationError)?;
        let number: u64 = rest[..digits].parse().map_err(|_| DurationError)?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis = match &rest[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(DurationError),
        };
        let part = number.checked_mul(millis).map(Duration::from_millis).ok_or(DurationError)?;
        total = total.checked_add(part).ok_or(DurationError)?;
        rest = &rest[end..];
    }
    if text.is_empty() { Err(DurationError) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kubernetes_writes_them() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        for wrong in ["", "s", "5 m", "-1s", "1d", "99999999999999999999s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn port_ranges_are_checked() {
        assert_eq!(parse_port_range("30000-32767"), Ok(30000..=32767));
        for wrong in ["", "5", "9-3", "0-9", "1-70000"] {
            assert!(parse_port_range(wrong).is_err(), "{wrong}");
        }
    }
}
