//! When a CronJob is due next, in its time zone.
//!
//! A schedule holds at each minute of real time whose local fields it names: an hour that the clocks skip has none, and
//! one that they repeat has each twice. Source: `SpecSchedule.Next` of github.com/robfig/cron/v3.

use std::time::Duration;

use fairlead_kinds::kinds::cron_schedule::{ANY, Fields, Schedule, parse};
use k8s_openapi::{
    api::batch::v1::CronJobSpec,
    jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone},
};

/// Years in which something must be due. Source: robfig/cron.
const YEARS: i16 = 5;

/// When something is due, and where.
#[derive(Clone, Debug)]
pub struct ZonedSchedule {
    schedule: Schedule,
    zone: TimeZone,
}

/// Why a CronJob is never due.
#[derive(Debug, PartialEq, Eq)]
pub enum ScheduleProblem {
    /// Its time zone is not known here.
    UnknownZone(String),
    /// Its schedule is none, for this reason.
    Unreadable(String),
}

impl ZonedSchedule {
    /// The schedule of a CronJob. A zone in the schedule's text, as it was allowed once, wins.
    pub fn of(spec: &CronJobSpec) -> Result<Self, ScheduleProblem> {
        let named = spec.time_zone.as_deref().map(zone).transpose()?;
        let schedule = parse(&spec.schedule).map_err(|error| ScheduleProblem::Unreadable(error.to_string()))?;
        let text = spec.schedule.as_str();
        let own = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
        let own = own.and_then(|text| text.split_once(' ')).map(|(name, _)| zone(name)).transpose()?;
        Ok(Self { schedule, zone: own.or(named).unwrap_or_else(TimeZone::system) })
    }

    /// The first time after `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let whole = Timestamp::from_second(after.as_second()).ok()?;
        match &self.schedule {
            Schedule::Every(period) => whole.checked_add(SignedDuration::try_from(*period).ok()?).ok(),
            Schedule::Fields(fields) => self.next_minute(fields, whole),
        }
    }

    fn next_minute(&self, fields: &Fields, after: Timestamp) -> Option<Timestamp> {
        let local = after.to_zoned(self.zone.clone());
        let start = later(after, 60 - i64::from(local.second()))?;
        let mut date = start.to_zoned(self.zone.clone()).date();
        let last_year = date.year().saturating_add(YEARS);
        while date.year() <= last_year {
            if !names(fields.month, date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
                continue;
            }
            if day_matches(fields, date)
                && let Some(found) = self.minute_of_day(fields, date, start)
            {
                return Some(found);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn minute_of_day(&self, fields: &Fields, date: Date, start: Timestamp) -> Option<Timestamp> {
        let midnight = date.to_zoned(self.zone.clone()).ok()?.start_of_day().ok()?;
        let mut at = start.max(midnight.timestamp());
        loop {
            let local = at.to_zoned(self.zone.clone());
            if local.date() != date {
                return None;
            }
            if !names(fields.hour, local.hour()) {
                at = later(at, 60 * (60 - i64::from(local.minute())))?;
            } else if !names(fields.minute, local.minute()) {
                at = later(at, 60)?;
            } else {
                return Some(at);
            }
        }
    }
}

/// The time zone of this name; the empty name is UTC, and `Local` that of this host.
pub fn zone(name: &str) -> Result<TimeZone, ScheduleProblem> {
    match name {
        "" | "UTC" => Ok(TimeZone::UTC),
        "Local" => Ok(TimeZone::system()),
        _ => TimeZone::get(name).map_err(|_| ScheduleProblem::UnknownZone(name.to_owned())),
    }
}

fn later(at: Timestamp, seconds: i64) -> Option<Timestamp> {
    at.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn names(values: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| values.checked_shr(value).is_some_and(|bits| bits & 1 == 1))
}

/// Where both kinds of day are restricted, one of them suffices.
fn day_matches(fields: &Fields, date: Date) -> bool {
    let of_month = names(fields.day_of_month, date.day());
    let of_week = names(fields.day_of_week, date.weekday().to_sunday_zero_offset());
    if fields.day_of_month & ANY != 0 || fields.day_of_week & ANY != 0 {
        of_month && of_week
    } else {
        of_month || of_week
    }
}

/// What a CronJob missed up to now.
#[derive(Debug, PartialEq, Eq)]
pub struct Missed {
    /// From when on was counted.
    pub since: Timestamp,
    /// The last time that it was due.
    pub last: Option<Timestamp>,
    /// About how many times it was due.
    pub count: i64,
}

/// What was missed after `since`; `None` for a schedule that never comes.
pub fn missed(schedule: &ZonedSchedule, since: Timestamp, now: Timestamp) -> Option<Missed> {
    let first = schedule.next(since)?;
    if now < first {
        return Some(Missed { since, last: None, count: 0 });
    }
    let second = schedule.next(first)?;
    if now < second {
        return Some(Missed { since, last: Some(first), count: 0 });
    }
    let seconds = |duration: SignedDuration| duration.as_secs();
    let period = seconds(second.duration_since(first)).max(1);
    // Whole periods are skipped rather than walked through: a clock may be wrong by decades.
    let count = seconds(now.duration_since(first)) / period + 1;
    let mut behind = 2;
    let mut last = None;
    while last.is_none() {
        // Periods may differ, as over a weekend: the next search begins earlier, at last at the first time.
        let skipped = count.saturating_sub(behind).max(0);
        let mut next = schedule.next(later(first, skipped.saturating_mul(period))?);
        while let Some(due) = next.filter(|due| *due <= now) {
            last = Some(due);
            next = schedule.next(due);
        }
        behind = behind.saturating_mul(2);
    }
    Some(Missed { since, last, count })
}

/// How long from `now` until `schedule` is due after `last`, and a moment more, for clocks that differ.
pub fn until_next(schedule: &ZonedSchedule, last: Timestamp, now: Timestamp) -> Option<Duration> {
    const MARGIN: Duration = Duration::from_millis(100);
    let rest = Duration::try_from(schedule.next(last)?.duration_since(now)).unwrap_or_default();
    Some(rest.saturating_add(MARGIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str, zone: Option<&str>) -> ZonedSchedule {
        let spec = CronJobSpec { schedule: text.into(), time_zone: zone.map(Into::into), ..Default::default() };
        ZonedSchedule::of(&spec).expect("a schedule")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a valid time")
    }

    #[test]
    fn the_next_time_is_the_first_minute_that_all_fields_name() {
        for (text, after, next) in [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("* * * * *", "2026-01-01T00:00:59.9Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-07-09T14:45:00Z", "2026-07-09T15:00:00Z"),
            ("0 * * * *", "2026-12-31T23:59:45Z", "2027-01-01T00:00:00Z"),
            ("20-35/15 * * * *", "2026-07-09T15:45:00Z", "2026-07-09T16:20:00Z"),
            ("0 0 29 2 *", "2026-07-09T15:45:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 1,15 * sun", "2026-07-02T00:00:00Z", "2026-07-05T00:00:00Z"),
            ("0 0 */10 * sun", "2026-07-02T00:00:00Z", "2026-07-05T00:00:00Z"),
            ("0 0 * * mon", "2026-07-09T23:35:00Z", "2026-07-13T00:00:00Z"),
            ("0 0 1 Jan-Mar *", "2026-04-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("@weekly", "2026-07-09T23:35:00Z", "2026-07-12T00:00:00Z"),
            ("@hourly", "2026-07-09T23:35:00Z", "2026-07-10T00:00:00Z"),
            ("@every 90s", "2026-07-09T23:35:10.5Z", "2026-07-09T23:36:40Z"),
        ] {
            assert_eq!(schedule(text, Some("UTC")).next(at(after)), Some(at(next)), "{text} after {after}");
        }
        assert_eq!(schedule("59 23 31 2 *", Some("UTC")).next(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn clocks_that_change_skip_an_hour_or_repeat_it() {
        let nightly = schedule("30 2 * * *", Some("America/New_York"));
        // 8 March 2026 has no 02:30 there.
        assert_eq!(nightly.next(at("2026-03-07T07:30:00Z")), Some(at("2026-03-09T06:30:00Z")));
        // 1 November 2026 has 01:30 twice.
        let early = schedule("30 1 * * *", Some("America/New_York"));
        assert_eq!(early.next(at("2026-11-01T00:00:00Z")), Some(at("2026-11-01T05:30:00Z")));
        assert_eq!(early.next(at("2026-11-01T05:30:00Z")), Some(at("2026-11-01T06:30:00Z")));
        assert_eq!(early.next(at("2026-11-01T06:30:00Z")), Some(at("2026-11-02T06:30:00Z")));
        // Midnight of 6 September 2026 does not exist in Santiago.
        let daily = schedule("0 12 * * *", Some("America/Santiago"));
        assert_eq!(daily.next(at("2026-09-05T17:00:00Z")), Some(at("2026-09-06T15:00:00Z")));
    }

    #[test]
    fn the_zone_in_the_schedule_wins() {
        let both = schedule("CRON_TZ=Europe/Berlin 0 12 * * *", Some("Asia/Tokyo"));
        assert_eq!(both.next(at("2026-01-01T00:00:00Z")), Some(at("2026-01-01T11:00:00Z")));
        let spec = CronJobSpec { time_zone: Some("Nowhere".into()), schedule: "@daily".into(), ..Default::default() };
        assert_eq!(ZonedSchedule::of(&spec).err(), Some(ScheduleProblem::UnknownZone("Nowhere".into())));
        let spec = CronJobSpec { schedule: "* * * *".into(), ..Default::default() };
        assert!(matches!(ZonedSchedule::of(&spec), Err(ScheduleProblem::Unreadable(_))));
    }

    #[test]
    fn the_last_missed_time_is_found_without_walking_through_all() {
        for (text, since, now, last, count) in [
            ("0 * * * *", "2026-05-19T10:00:00Z", "2026-05-19T10:30:00Z", None, 0),
            ("0 * * * *", "2026-05-19T10:00:00Z", "2026-05-19T11:30:00Z", Some("2026-05-19T11:00:00Z"), 0),
            ("0 * * * *", "2026-05-19T10:00:00Z", "2026-05-19T12:00:00Z", Some("2026-05-19T12:00:00Z"), 2),
            ("* * * * *", "2006-05-19T10:00:00Z", "2026-05-19T12:00:30Z", Some("2026-05-19T12:00:00Z"), 10_519_320),
            ("30 6-16/4 * * 1-5", "2022-09-03T23:00:00Z", "2022-09-08T19:00:00Z", Some("2022-09-08T14:30:00Z"), 22),
            ("@every 1h", "2026-05-19T10:10:00Z", "2026-05-19T15:30:00Z", Some("2026-05-19T15:10:00Z"), 5),
        ] {
            let found = missed(&schedule(text, Some("UTC")), at(since), at(now)).expect("a schedule that comes");
            assert_eq!((found.last, found.count), (last.map(at), count), "{text} {since} {now}");
        }
        assert_eq!(
            missed(&schedule("59 23 31 2 *", None), at("2026-01-01T00:00:00Z"), at("2026-06-01T00:00:00Z")),
            None
        );
    }
}
