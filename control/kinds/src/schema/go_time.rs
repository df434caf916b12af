//! What Go's `time.Parse` says of a text that is no point in time. Reads nothing itself.

use crate::kinds::field::go_quoted;

/// RFC 3339 in whole seconds; a fraction is taken.
pub const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
/// RFC 3339 with six digits of a fraction.
pub const MICROSECONDS: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Why a text is no point in time, in the words of Go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GoTimeError {
    /// It does not have the form of the layout.
    #[error(
        "parsing time {} as \"{layout}\": cannot parse {} as \"{element}\"",
        go_quoted(.text),
        go_quoted(.rest)
    )]
    Form {
        /// All of it.
        text: String,
        /// In which form it should be.
        layout: &'static str,
        /// What cannot be read.
        rest: String,
        /// As what it should be read: `04`.
        element: &'static str,
    },
    /// There is no such month, hour, minute, second or day.
    #[error("parsing time {}: {what} out of range", go_quoted(.text))]
    OutOfRange {
        /// All of it.
        text: String,
        /// `month`
        what: &'static str,
    },
    /// More follows.
    #[error("parsing time {}: extra text: {}", go_quoted(.text), go_quoted(.extra))]
    ExtraText {
        /// All of it.
        text: String,
        /// What follows.
        extra: String,
    },
}

/// Whether `text` is in the form of `layout`, one of the two above. Source: `time/format.go`.
pub fn check(text: &str, layout: &'static str) -> Result<(), GoTimeError> {
    let has_fraction = layout == MICROSECONDS;
    let mut parser = Parser { text, layout, rest: text };
    let year = parser.element("2006", |rest| match rest.get(..4) {
        Some(year) if rest.starts_with(|c: char| c.is_ascii_digit()) => Some((year.parse().ok()?, &rest[4..])),
        _ => None,
    })?;
    parser.literal("-")?;
    let month = parser.number("01", "month", 1..=12, true)?;
    parser.literal("-")?;
    let day = parser.number("02", "", 0..=99, true)?;
    parser.literal("T")?;
    parser.number("15", "hour", 0..=23, false)?;
    parser.literal(":")?;
    parser.number("04", "minute", 0..=59, true)?;
    parser.literal(":")?;
    parser.number("05", "second", 0..=59, true)?;
    if has_fraction {
        parser.element(".000000", |rest| {
            let digits = rest.strip_prefix(['.', ','])?.get(..6)?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| (0, &rest[7..]))
        })?;
    } else if let Some(fraction) = parser.rest.strip_prefix(['.', ',']) {
        let digits = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if digits.len() < fraction.len() {
            parser.rest = digits;
        }
    }
    let zone = parser.rest;
    parser.element("Z07:00", |rest| match rest.strip_prefix('Z') {
        Some(rest) => Some((0, rest)),
        None => {
            let bytes = rest.as_bytes().get(..6)?;
            let digits = [1, 2, 4, 5].iter().all(|at| bytes[*at].is_ascii_digit());
            (matches!(bytes[0], b'+' | b'-') && bytes[3] == b':' && digits).then(|| (0, &rest[6..]))
        }
    })?;
    let exceeds = |digits: std::ops::Range<usize>, most: u32| {
        zone.get(digits).and_then(|digits| digits.parse::<u32>().ok()).is_some_and(|number| number > most)
    };
    // Hours of 24 and minutes of 60 are taken.
    for (digits, most, what) in [(4..6, 60, "time zone offset minute"), (1..3, 24, "time zone offset hour")] {
        if !zone.starts_with('Z') && exceeds(digits, most) {
            return Err(GoTimeError::OutOfRange { text: text.to_owned(), what });
        }
    }
    if !parser.rest.is_empty() {
        return Err(GoTimeError::ExtraText { text: text.to_owned(), extra: parser.rest.to_owned() });
    }
    if day < 1 || day > days_in(month, year) {
        return Err(GoTimeError::OutOfRange { text: text.to_owned(), what: "day" });
    }
    Ok(())
}

struct Parser<'t> {
    text: &'t str,
    layout: &'static str,
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn cannot_read(&self, element: &'static str) -> GoTimeError {
        GoTimeError::Form { text: self.text.to_owned(), layout: self.layout, rest: self.rest.to_owned(), element }
    }

    fn literal(&mut self, literal: &'static str) -> Result<(), GoTimeError> {
        self.rest = self.rest.strip_prefix(literal).ok_or_else(|| self.cannot_read(literal))?;
        Ok(())
    }

    fn element(
        &mut self,
        element: &'static str,
        read: impl FnOnce(&'t str) -> Option<(u32, &'t str)>,
    ) -> Result<u32, GoTimeError> {
        let (value, rest) = read(self.rest).ok_or_else(|| self.cannot_read(element))?;
        self.rest = rest;
        Ok(value)
    }

    /// Two digits, or one where the layout does not insist.
    fn number(
        &mut self,
        element: &'static str,
        what: &'static str,
        range: std::ops::RangeInclusive<u32>,
        fixed: bool,
    ) -> Result<u32, GoTimeError> {
        let value = self.element(element, |rest| {
            let digits = rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
            (digits == 2 || (digits == 1 && !fixed)).then(|| Some((rest[..digits].parse().ok()?, &rest[digits..])))?
        })?;
        if range.contains(&value) {
            Ok(value)
        } else {
            Err(GoTimeError::OutOfRange { text: self.text.to_owned(), what })
        }
    }
}

fn days_in(month: u32, year: u32) -> u32 {
    let leaps = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leaps => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kube-apiserver 1.35.4 answered with for each.
    #[test]
    fn refusals_are_those_of_go() {
        let seconds = |text: &str| check(text, SECONDS).unwrap_err().to_string();
        assert_eq!(seconds("2020-13-01T00:00:00Z"), "parsing time \"2020-13-01T00:00:00Z\": month out of range");
        let zone = |zone: &str| seconds(&format!("2020-01-01T00:00:00{zone}"));
        assert!(zone("+25:00").ends_with("\": time zone offset hour out of range"), "{}", zone("+25:00"));
        assert!(zone("-24:61x").ends_with("\": time zone offset minute out of range"));
        let form = "as \"2006-01-02T15:04:05Z07:00\": cannot parse";
        assert_eq!(seconds("now"), format!("parsing time \"now\" {form} \"now\" as \"2006\""));
        let form = "as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse";
        let micro = |text| check(text, MICROSECONDS).unwrap_err().to_string();
        assert_eq!(micro("2020-01-01"), format!("parsing time \"2020-01-01\" {form} \"\" as \"T\""));
        let time = "2020-01-01T00:00:00Z";
        assert_eq!(micro(time), format!("parsing time \"{time}\" {form} \"Z\" as \".000000\""));
    }

    #[test]
    fn what_go_takes_is_taken() {
        for good in ["2024-02-29T10:00:00Z", "2024-05-01T9:00:00.5+02:00", "0001-01-01T00:00:00Z"] {
            assert_eq!(check(good, SECONDS), Ok(()), "{good}");
        }
        assert_eq!(check("2024-05-01T10:00:00.123456-07:00", MICROSECONDS), Ok(()));
        for bad in ["2023-02-29T10:00:00Z", "2024-05-01T10:00:00Zx", "2024-05-01 10:00:00Z", "", "é"] {
            assert!(check(bad, SECONDS).is_err(), "{bad}");
        }
    }
}
