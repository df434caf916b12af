//! The texts that are more than text: points in time, quantities, base64. Each is checked as Kubernetes' Go types read
//! it, and put in the form in which they write it, where it differs.

use base64::{DecodeError, Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;

use super::go_time::{self, GoTimeError};
use crate::kinds::quantity::Quantity;

/// Go's zero time, which a typed client reads as "no time at all".
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";
/// The zero value of Go's `MicroTime`.
pub const ZERO_MICRO_TIME: &str = "0001-01-01T00:00:00.000000Z";

/// Why a text is not what its field holds. The texts are those of Kubernetes' decoder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScalarError {
    /// Not in the form of RFC 3339, no such day or hour, or further away than can be told.
    #[error(transparent)]
    Time(#[from] GoTimeError),
    /// No digits, or two points.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Quantity,
    /// A number with a unit that quantities do not have.
    #[error("unable to parse quantity's suffix")]
    QuantitySuffix,
    /// A byte outside the alphabet, or the end in the middle of a group.
    #[error("illegal base64 data at input byte {at}")]
    Base64 {
        /// Counted from 0, without line breaks.
        at: usize,
    },
}

/// The RFC 3339 form, UTC in whole seconds; `None` where `text` has it already.
pub fn time(text: &str) -> Result<Option<String>, ScalarError> {
    let at = timestamp(text, go_time::SECONDS)?;
    let canonical = text.len() == "2006-01-02T15:04:05Z".len() && text.ends_with('Z');
    Ok((!canonical).then(|| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

/// The same with six digits of a second's fraction.
pub fn micro_time(text: &str) -> Result<Option<String>, ScalarError> {
    let at = timestamp(text, go_time::MICROSECONDS)?;
    let canonical = text.len() == "2006-01-02T15:04:05.000000Z".len() && text.ends_with('Z');
    Ok((!canonical).then(|| at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()))
}

fn timestamp(text: &str, layout: &'static str) -> Result<Timestamp, ScalarError> {
    go_time::check(text, layout)?;
    // Go takes an hour of one digit.
    let padded = (text.as_bytes().get(12) == Some(&b':')).then(|| format!("{}0{}", &text[..11], &text[11..]));
    let parsed = padded.as_deref().unwrap_or(text).parse();
    // Go takes the last hours of 9999 in zones where it is earlier: in UTC they have no year of four digits.
    parsed.map_err(|_| GoTimeError::OutOfRange { text: text.to_owned(), what: "year" }.into())
}

/// The canonical form of a quantity: `500m` for `0.5`.
pub fn quantity(text: &str) -> Result<Option<String>, ScalarError> {
    check_quantity(text)?;
    let canonical = Quantity::parse(text).map(|quantity| quantity.to_string());
    Ok(canonical.filter(|canonical| canonical != text))
}

/// Whether `text` is a quantity: digits with at most one point, then a suffix or an exponent.
///
/// Source: `ParseQuantity` of apimachinery's `resource`.
fn check_quantity(text: &str) -> Result<(), ScalarError> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    if !number.bytes().any(|b| b.is_ascii_digit()) || number.bytes().filter(|b| *b == b'.').count() > 1 {
        return Err(ScalarError::Quantity);
    }
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| exponent.parse::<i32>().is_ok());
    match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" => Ok(()),
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => Ok(()),
        _ if exponent => Ok(()),
        _ if has_form_of_suffix(suffix) => Err(ScalarError::QuantitySuffix),
        _ => Err(ScalarError::Quantity),
    }
}

/// Letters that suffixes have, a sign, and digits.
fn has_form_of_suffix(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

/// `text` without the line breaks that base64 often has, if it has some; an error if it is not base64.
pub fn base64(text: &str) -> Result<Option<String>, ScalarError> {
    match BASE64_STANDARD.decode(text) {
        Ok(_) => Ok(None),
        Err(DecodeError::InvalidByte(..)) if text.contains(['\n', '\r']) => {
            let joined = text.replace(['\n', '\r'], "");
            base64(&joined).map(|_| Some(joined))
        }
        Err(DecodeError::InvalidByte(at, _)) => Err(ScalarError::Base64 { at }),
        // Go names the first of the four characters of which some are missing.
        Err(_) => Err(ScalarError::Base64 { at: text.len() / 4 * 4 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for good in ["1", "0.5", "+1.5Gi", "-3", "100m", "1e3", "1E-3", ".5", "5.", "12E", "1Ei", "3u"] {
            assert_eq!(check_quantity(good), Ok(()), "{good}");
        }
        for (given, canonical) in [("0.5", "500m"), ("1024Mi", "1Gi"), ("1000m", "1"), ("1000", "1k")] {
            assert_eq!(quantity(given), Ok(Some(canonical.to_owned())), "{given}");
        }
        assert_eq!(quantity("1500m"), Ok(None));
        assert_eq!(check_quantity("5 G"), Err(ScalarError::Quantity));
        assert_eq!(check_quantity("5KK"), Err(ScalarError::QuantitySuffix));
        for bad in ["", "m", "1.2.3", "1 Gi", "1Kii", "1ki", "--1", "1e", ".", "0x10", "1é"] {
            assert!(check_quantity(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_come_in_any_zone_and_leave_in_utc() {
        assert_eq!(time("2024-05-01T10:00:00Z"), Ok(None));
        assert_eq!(time("2024-05-01T10:00:00+02:00"), Ok(Some("2024-05-01T08:00:00Z".into())));
        assert_eq!(time("2024-05-01T10:00:00.987Z"), Ok(Some("2024-05-01T10:00:00Z".into())));
        assert_eq!(micro_time("2024-05-01T10:00:00.000001+02:00"), Ok(Some("2024-05-01T08:00:00.000001Z".into())));
        assert!(micro_time("2024-05-01T10:00:00Z").is_err());
        assert_eq!(micro_time("2024-05-01T10:00:00.123456Z"), Ok(None));
        assert_eq!(time("2024-05-01T9:00:00+02:00"), Ok(Some("2024-05-01T07:00:00Z".into())));
        assert_eq!(time("2024-05-01T9:00:00Z"), Ok(Some("2024-05-01T09:00:00Z".into())));
        let far = time("9999-12-31T23:59:59-12:00").unwrap_err().to_string();
        assert_eq!(far, "parsing time \"9999-12-31T23:59:59-12:00\": year out of range");
        assert_eq!((time(ZERO_TIME), micro_time(ZERO_MICRO_TIME)), (Ok(None), Ok(None)));
        for bad in
            ["", "yesterday", "2024-05-01", "2024-05-01 10:00:00Z", "2024-13-01T10:00:00Z", "é024-05-01T10:00:00Z"]
        {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base64_may_have_line_breaks_and_must_be_padded() {
        assert_eq!(base64("aGVsbG8="), Ok(None));
        assert_eq!(base64("aGVs\nbG8=\n"), Ok(Some("aGVsbG8=".into())));
        assert_eq!(base64("aGV%bG8="), Err(ScalarError::Base64 { at: 3 }));
        assert!(base64("aGVsbG8").is_err());
    }
}
