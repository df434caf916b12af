//! Conversions between types: `int("5")`, `timestamp("…")`, `string(duration)`.

use std::rc::Rc;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;

use super::value::{Opaque, Value};

/// Why a value cannot be converted. The words are those of cel-go, and of Go where it reads a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// It is beyond what an `int` can be.
    #[error("integer overflow")]
    Int,
    /// It is beyond what a `uint` can be.
    #[error("unsigned integer overflow")]
    Uint,
    /// It is beyond what a `timestamp` can be.
    #[error("timestamp overflow")]
    Timestamp,
    /// The text is no boolean or number.
    #[error("strconv.{function}: parsing {text:?}: invalid syntax")]
    Syntax {
        /// What reads it in Go.
        function: &'static str,
        /// As it is.
        text: String,
    },
    /// The text is no point in time.
    #[error("parsing time {0:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0:?} as \"2006\"")]
    NoTimestamp(String),
    /// The text is no duration.
    #[error("time: invalid duration {0:?}")]
    NoDuration(String),
    /// The bytes are no text.
    #[error("invalid UTF-8 in bytes, cannot convert to string")]
    Utf8,
}

/// The result, or nothing where there is no such conversion.
pub fn convert<'v>(to: &str, value: &Value<'v>) -> Option<Result<Value<'v>, ConversionError>> {
    Some(match to {
        "int" => int(value)?.map(Value::Int),
        "uint" => uint(value)?.map(Value::Uint),
        "double" => double(value)?.map(Value::Double),
        "string" => string(value)?.map(|text| Value::String(text.into())),
        "bytes" => match value {
            Value::Bytes(bytes) => Ok(Value::Bytes(bytes.clone())),
            Value::String(text) => Ok(Value::Bytes(text.as_bytes().into())),
            _ => return None,
        },
        "bool" => match value {
            Value::Bool(value) => Ok(Value::Bool(*value)),
            Value::String(text) => match &**text {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
                _ => Err(syntax("ParseBool", text)),
            },
            _ => return None,
        },
        "timestamp" => match value {
            Value::Timestamp(at) => Ok(Value::Timestamp(*at)),
            Value::Int(seconds) => {
                Timestamp::from_second(*seconds).map(Value::Timestamp).map_err(|_| ConversionError::Timestamp)
            }
            Value::String(text) => {
                timestamp(text).map(Value::Timestamp).ok_or_else(|| ConversionError::NoTimestamp(text.to_string()))
            }
            _ => return None,
        },
        "duration" => match value {
            Value::Duration(span) => Ok(Value::Duration(*span)),
            Value::Int(nanos) => Ok(Value::Duration(*nanos)),
            Value::String(text) => {
                duration(text).map(Value::Duration).ok_or_else(|| ConversionError::NoDuration(text.to_string()))
            }
            _ => return None,
        },
        _ => return None,
    })
}

fn syntax(function: &'static str, text: &str) -> ConversionError {
    ConversionError::Syntax { function, text: text.to_owned() }
}

fn int(value: &Value<'_>) -> Option<Result<i64, ConversionError>> {
    Some(match value {
        Value::Int(value) => Ok(*value),
        Value::Uint(value) => i64::try_from(*value).map_err(|_| ConversionError::Int),
        Value::Double(value) => {
            let fits = *value > -9_223_372_036_854_775_808.0 && *value < 9_223_372_036_854_775_808.0;
            if fits { Ok(*value as i64) } else { Err(ConversionError::Int) }
        }
        Value::String(text) => text.parse().map_err(|_| syntax("ParseInt", text)),
        Value::Timestamp(at) => Ok(at.as_second()),
        Value::Duration(nanos) => Ok(*nanos),
        _ => return None,
    })
}

fn uint(value: &Value<'_>) -> Option<Result<u64, ConversionError>> {
    Some(match value {
        Value::Uint(value) => Ok(*value),
        Value::Int(value) => u64::try_from(*value).map_err(|_| ConversionError::Uint),
        Value::Double(value) => {
            if *value > -1.0 && *value < 18_446_744_073_709_551_616.0 {
                Ok(*value as u64)
            } else {
                Err(ConversionError::Uint)
            }
        }
        Value::String(text) => text.parse().map_err(|_| syntax("ParseUint", text)),
        _ => return None,
    })
}

fn double(value: &Value<'_>) -> Option<Result<f64, ConversionError>> {
    Some(match value {
        Value::Double(value) => Ok(*value),
        Value::Int(value) => Ok(*value as f64),
        Value::Uint(value) => Ok(*value as f64),
        Value::String(text) => text.parse().map_err(|_| syntax("ParseFloat", text)),
        _ => return None,
    })
}

fn string(value: &Value<'_>) -> Option<Result<String, ConversionError>> {
    Some(Ok(match value {
        Value::String(text) => text.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return Some(Err(ConversionError::Utf8)),
        },
        Value::Timestamp(at) => at.to_string(),
        Value::Duration(nanos) => shown_duration(*nanos),
        Value::Opaque(Opaque::Ip(address)) => address.to_string(),
        Value::Opaque(Opaque::Cidr(address, length)) => format!("{address}/{length}"),
        _ => return None,
    }))
}

/// A duration as CEL writes it: `1.5s`.
pub fn shown_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    match rest {
        0 => format!("{sign}{seconds}s"),
        rest => format!("{sign}{seconds}.{}s", format!("{rest:09}").trim_end_matches('0')),
    }
}

/// RFC 3339.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    matches!(text.as_bytes().get(10), Some(b'T' | b't')).then(|| text.parse().ok()).flatten()
}

/// Nanoseconds of `1h30m`, as Go's `time.ParseDuration` reads it.
pub fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_f64;
    let mut exact = 0_i128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number = &rest[..end];
        let rest_of_unit = &rest[end..];
        let unit_end = rest_of_unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest_of_unit.len());
        let unit: i128 = match &rest_of_unit[..unit_end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        match number.split_once('.') {
            None => exact = exact.checked_add(number.parse::<i128>().ok()?.checked_mul(unit)?)?,
            Some(_) if number.len() > 1 => total += number.parse::<f64>().ok()? * unit as f64,
            Some(_) => return None,
        }
        rest = &rest_of_unit[unit_end..];
    }
    let total = exact.checked_add(total as i128)?;
    i64::try_from(if negative { -total } else { total }).ok()
}

/// The bytes of a base64 text.
pub fn base64(text: &str) -> Option<Rc<[u8]>> {
    BASE64_STANDARD.decode(text).ok().map(Into::into)
}
