//! When a CronJob is due: the five fields of cron, or a descriptor such as `@daily`.
//!
//! Reads what `ParseStandard` of github.com/robfig/cron/v3 reads, and refuses the rest in its words: what a cluster of
//! Kubernetes takes is taken here. No crate agrees with it: others know seconds, `L`, `W`, `#` or Sunday as 7.

use std::{ops::RangeInclusive, time::Duration};

use super::go_duration::{GoDurationError, NANOS_PER_SECOND, go_duration};

/// When something is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At each minute that all fields hold.
    Fields(Fields),
    /// So long after the last time, in whole seconds.
    Every(Duration),
}

/// The values that each field of a schedule takes, as bits: bit 5 of `minute` is minute 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// 0 to 59
    pub minute: u64,
    /// 0 to 23
    pub hour: u64,
    /// 1 to 31; with [`ANY`] if the schedule does not say.
    pub day_of_month: u64,
    /// 1 to 12
    pub month: u64,
    /// 0 (Sunday) to 6; with [`ANY`] if the schedule does not say. Where both kinds of day are said, either is enough.
    pub day_of_week: u64,
}

/// The bit that tells `*` from a list of all values.
pub const ANY: u64 = 1 << 63;

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// There is nothing.
    #[error("empty spec string")]
    Empty,
    /// Not five fields.
    #[error("expected exactly 5 fields, found {}: [{}]", .0.len(), .0.join(" "))]
    Fields(Vec<String>),
    /// A time zone, and nothing behind it: robfig's parser panics there, and Kubernetes tells that.
    #[error("invalid schedule format: runtime error: slice bounds out of range [:-1]")]
    OnlyTimeZone,
    /// There is no such time zone.
    #[error("provided bad location {0}: unknown time zone {0}")]
    UnknownTimeZone(String),
    /// `@often`
    #[error("unrecognized descriptor: {0}")]
    UnknownDescriptor(String),
    /// `@every soon`
    #[error("failed to parse duration {descriptor}: {error}")]
    Duration {
        /// All of it.
        descriptor: String,
        /// What is wrong behind `@every`.
        error: GoDurationError,
    },
    /// `1-2-3`
    #[error("too many hyphens: {0}")]
    TooManyHyphens(String),
    /// `1/2/3`
    #[error("too many slashes: {0}")]
    TooManySlashes(String),
    /// It begins before what the field takes.
    #[error("beginning of range ({start}) below minimum ({min}): {range}")]
    BelowMinimum {
        /// Where it begins.
        start: u64,
        /// The least that the field takes.
        min: u64,
        /// As it was written.
        range: String,
    },
    /// It ends behind what the field takes.
    #[error("end of range ({end}) above maximum ({max}): {range}")]
    AboveMaximum {
        /// Where it ends.
        end: u64,
        /// The most that the field takes.
        max: u64,
        /// As it was written.
        range: String,
    },
    /// `5-1`
    #[error("beginning of range ({start}) beyond end of range ({end}): {range}")]
    Backwards {
        /// Where it begins.
        start: u64,
        /// Where it ends.
        end: u64,
        /// As it was written.
        range: String,
    },
    /// `*/0`
    #[error("step of range should be a positive number: {0}")]
    NoStep(String),
    /// Digits, but more than a number has.
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: value out of range")]
    NumberOutOfRange(String),
    /// No digits.
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: invalid syntax")]
    NotANumber(String),
    /// `-1`
    #[error("negative number ({number}) not allowed: {text}")]
    NegativeNumber {
        /// What it is.
        number: i64,
        /// As it was written.
        text: String,
    },
}

struct Bounds {
    values: RangeInclusive<u64>,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { values: 0..=59, names: &[] };
const HOURS: Bounds = Bounds { values: 0..=23, names: &[] };
const DAYS_OF_MONTH: Bounds = Bounds { values: 1..=31, names: &[] };
const MONTHS: Bounds = Bounds {
    values: 1..=12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const DAYS_OF_WEEK: Bounds = Bounds { values: 0..=6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Reads a schedule. A time zone in it (`CRON_TZ=…`) is checked and left out.
pub fn parse(text: &str) -> Result<Schedule, ScheduleError> {
    if text.is_empty() {
        return Err(ScheduleError::Empty);
    }
    let text = without_time_zone(text)?;
    if text.starts_with('@') {
        return descriptor(text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day_of_month, month, day_of_week] = fields.as_slice() else {
        return Err(ScheduleError::Fields(fields.into_iter().map(str::to_owned).collect()));
    };
    Ok(Schedule::Fields(Fields {
        minute: values(minute, &MINUTES)?,
        hour: values(hour, &HOURS)?,
        day_of_month: values(day_of_month, &DAYS_OF_MONTH)?,
        month: values(month, &MONTHS)?,
        day_of_week: values(day_of_week, &DAYS_OF_WEEK)?,
    }))
}

/// Whether the time zones that are known here have one of this name.
pub fn is_time_zone(name: &str) -> bool {
    name == "UTC" || jiff::tz::TimeZone::get(name).is_ok()
}

fn without_time_zone(text: &str) -> Result<&str, ScheduleError> {
    let Some(zoned) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else { return Ok(text) };
    let Some((zone, rest)) = zoned.split_once(' ') else { return Err(ScheduleError::OnlyTimeZone) };
    if !zone.is_empty() && zone != "Local" && !is_time_zone(zone) {
        return Err(ScheduleError::UnknownTimeZone(zone.to_owned()));
    }
    Ok(rest.trim())
}

fn descriptor(text: &str) -> Result<Schedule, ScheduleError> {
    let any = |bounds: &Bounds| bits(*bounds.values.start(), *bounds.values.end(), 1) | ANY;
    let hourly = Fields {
        minute: 1,
        hour: any(&HOURS),
        day_of_month: any(&DAYS_OF_MONTH),
        month: any(&MONTHS),
        day_of_week: any(&DAYS_OF_WEEK),
    };
    let daily = Fields { hour: 1, ..hourly };
    let fields = match text {
        "@yearly" | "@annually" => Fields { day_of_month: 1 << 1, month: 1 << 1, ..daily },
        "@monthly" => Fields { day_of_month: 1 << 1, ..daily },
        "@weekly" => Fields { day_of_week: 1, ..daily },
        "@daily" | "@midnight" => daily,
        "@hourly" => hourly,
        _ => {
            let Some(every) = text.strip_prefix("@every ") else {
                return Err(ScheduleError::UnknownDescriptor(text.to_owned()));
            };
            let seconds = go_duration(every)
                .map_err(|error| ScheduleError::Duration { descriptor: text.to_owned(), error })?
                .max(NANOS_PER_SECOND)
                / NANOS_PER_SECOND;
            return Ok(Schedule::Every(Duration::from_secs(u64::try_from(seconds).unwrap_or(1))));
        }
    };
    Ok(Schedule::Fields(fields))
}

/// A list of ranges: `1,5-10,*/15`.
fn values(field: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    field.split(',').filter(|range| !range.is_empty()).try_fold(0, |all, range| Ok(all | self::range(range, bounds)?))
}

/// `*`, `5`, `5-10`, each with or without `/step`.
fn range(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let (min, max) = (*bounds.values.start(), *bounds.values.end());
    let mut slashes = text.split('/');
    let span: Vec<&str> = slashes.next().unwrap_or_default().split('-').collect();
    let mut any = 0;
    let (start, mut end) = match span.as_slice() {
        ["*" | "?", ..] => {
            any = ANY;
            (min, max)
        }
        [one] => {
            let one = number_or_name(one, bounds)?;
            (one, one)
        }
        [low, high] => (number_or_name(low, bounds)?, number_or_name(high, bounds)?),
        _ => return Err(ScheduleError::TooManyHyphens(text.to_owned())),
    };
    let step = match (slashes.next(), slashes.next()) {
        (None, _) => 1,
        (Some(step), None) => {
            let step = number(step)?;
            if span.len() == 1 {
                end = max;
            }
            if step > 1 {
                any = 0;
            }
            step
        }
        (Some(_), Some(_)) => return Err(ScheduleError::TooManySlashes(text.to_owned())),
    };
    let range = || text.to_owned();
    if start < min {
        Err(ScheduleError::BelowMinimum { start, min, range: range() })
    } else if end > max {
        Err(ScheduleError::AboveMaximum { end, max, range: range() })
    } else if start > end {
        Err(ScheduleError::Backwards { start, end, range: range() })
    } else if step == 0 {
        Err(ScheduleError::NoStep(range()))
    } else {
        Ok(bits(start, end, step) | any)
    }
}

/// Every `step`th bit from `start` to `end`, which are below 64.
fn bits(start: u64, end: u64, step: u64) -> u64 {
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    (start..=end).step_by(step).fold(0, |bits, at| bits | 1 << at)
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    match bounds.names.iter().zip(*bounds.values.start()..).find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        Some((_, value)) => Ok(value),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, ScheduleError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let numeric = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number: i64 = text.parse().map_err(|_| match numeric {
        true => ScheduleError::NumberOutOfRange(text.to_owned()),
        false => ScheduleError::NotANumber(text.to_owned()),
    })?;
    u64::try_from(number).map_err(|_| ScheduleError::NegativeNumber { number, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(text: &str) -> Fields {
        match parse(text) {
            Ok(Schedule::Fields(fields)) => fields,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn refusal(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    #[test]
    fn time_zones_are_known_on_hosts_without_a_database_of_them() {
        let bundled = jiff::tz::TimeZoneDatabase::bundled();
        assert!(bundled.get("Europe/Berlin").is_ok());
        assert!(is_time_zone("Europe/Berlin") && !is_time_zone("Europe/Nowhere"));
    }

    #[test]
    fn fields_are_lists_of_ranges_with_steps_and_names() {
        let every = fields("*/15 0 1,15 * 1-5");
        assert_eq!(every.minute, 1 | 1 << 15 | 1 << 30 | 1 << 45);
        assert_eq!(every.hour, 1);
        assert_eq!(every.day_of_month, 1 << 1 | 1 << 15);
        assert_eq!(every.month & ANY, ANY);
        assert_eq!(every.day_of_week, 0b111110);
        let named = fields("0 0 ? JAN-Mar sun");
        assert_eq!((named.month, named.day_of_week), (0b1110, 1));
        assert_eq!(named.day_of_month & ANY, ANY);
        assert_eq!(fields("5/20 * * * *").minute, 1 << 5 | 1 << 25 | 1 << 45);
        assert_eq!(fields("@weekly"), fields("0 0 * * 0"));
        assert_eq!(fields("@annually"), fields("0 0 1 1 *"));
        assert_eq!(parse("@every 1h30m"), Ok(Schedule::Every(Duration::from_secs(5_400))));
        assert_eq!(parse("@every 10ms"), Ok(Schedule::Every(Duration::from_secs(1))));
    }

    #[test]
    fn refusals_read_as_in_kubernetes() {
        assert_eq!(refusal("* * * *"), "expected exactly 5 fields, found 4: [* * * *]");
        assert_eq!(refusal("60 * * * *"), "end of range (60) above maximum (59): 60");
        assert_eq!(refusal("* * 0 * *"), "beginning of range (0) below minimum (1): 0");
        assert_eq!(refusal("5-1 * * * *"), "beginning of range (5) beyond end of range (1): 5-1");
        assert_eq!(refusal("*/0 * * * *"), "step of range should be a positive number: */0");
        assert_eq!(refusal("1-2-3 * * * *"), "too many hyphens: 1-2-3");
        assert_eq!(refusal("1/2/3 * * * *"), "too many slashes: 1/2/3");
        assert_eq!(refusal("* * * * 7"), "end of range (7) above maximum (6): 7");
        assert_eq!(refusal("a * * * *"), "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax");
        assert_eq!(refusal("@often"), "unrecognized descriptor: @often");
        assert_eq!(refusal("@every soon"), "failed to parse duration @every soon: time: invalid duration \"soon\"");
        assert_eq!(refusal("@every 5"), "failed to parse duration @every 5: time: missing unit in duration \"5\"");
        assert!(refusal("TZ=0").starts_with("invalid schedule format:"));
        assert!(refusal("TZ=Nowhere/Land * * * * *").contains("unknown time zone"));
        assert_eq!(fields("CRON_TZ=UTC 1 * * * *").minute, 2);
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "\\PC{0,40}", fields in "[-0-9*/,?a-z ]{0,40}", every in "@every [-0-9.hmsnuµ]{0,30}") {
            for text in [text, fields, every] {
                let _ = parse(&text);
            }
        }
    }
}
