//! Parts of points in time and durations: `t.getHours()`, `t.getDayOfWeek("Europe/Berlin")`.

use jiff::{Timestamp, Zoned, tz::TimeZone};

use crate::cel::{
    eval::{Answer, EvalError, Run, failure},
    value::Value,
};

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    let answer = match values {
        [Value::Timestamp(at)] => part(name, at, "UTC")?,
        [Value::Timestamp(at), Value::String(zone)] => part(name, at, zone)?,
        [Value::Duration(nanos)] => Ok(Value::Int(match name {
            "getHours" => nanos / 3_600_000_000_000,
            "getMinutes" => nanos / 60_000_000_000,
            "getSeconds" => nanos / 1_000_000_000,
            "getMilliseconds" => nanos / 1_000_000 % 1000,
            _ => return None,
        })),
        _ => return None,
    };
    Some(run.charge(1).and(answer))
}

fn part<'v>(name: &str, at: &Timestamp, zone: &str) -> Option<Answer<'v>> {
    if !name.starts_with("get") {
        return None;
    }
    let at = match zoned(at, zone) {
        Ok(at) => at,
        Err(error) => return Some(Err(error)),
    };
    let days = i64::from(at.day_of_year());
    Some(Ok(Value::Int(match name {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDayOfYear" => days - 1,
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return None,
    })))
}

/// In a zone by name, or by its distance from UTC: `-02:30`.
fn zoned(at: &Timestamp, zone: &str) -> Result<Zoned, EvalError> {
    let offset = || {
        let (sign, rest) = match zone.as_bytes().first()? {
            b'-' => (-1, &zone[1..]),
            b'+' => (1, &zone[1..]),
            _ => (1, zone),
        };
        let (hours, minutes) = rest.split_once(':')?;
        let seconds =
            sign * (hours.parse::<i32>().ok()?.checked_mul(3600)? + minutes.parse::<i32>().ok()?.checked_mul(60)?);
        jiff::tz::Offset::from_seconds(seconds).ok().map(TimeZone::fixed)
    };
    let found = match zone {
        "" | "UTC" => Some(TimeZone::UTC),
        _ => offset().or_else(|| TimeZone::get(zone).ok()),
    };
    found.map(|zone| at.to_zoned(zone)).ok_or_else(|| failure(format!("unknown time zone {zone}")))
}
