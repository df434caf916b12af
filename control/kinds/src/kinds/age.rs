//! Table cells, and how long ago something was in the words of `kubectl get`.
//!
//! Cells are made when an object is written and shown much later, so a cell that tells an age holds the instant, not
//! the words.

use jiff::Timestamp;
use serde_json::Value;

/// One cell of a Table row, as it is kept beside the stored object.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Shown as it is.
    Fixed(Value),
    /// `before`, then the time since `at`, then `after`: `5m`, `3 (2m ago)`.
    Since {
        /// Text before the age.
        before: Box<str>,
        /// From when the age counts.
        at: Timestamp,
        /// Text behind the age.
        after: Box<str>,
    },
}

impl Cell {
    /// A cell that never changes: a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Fixed(Value::String(text.into()))
    }

    /// A cell that never changes: a number.
    pub fn integer(n: i64) -> Self {
        Self::Fixed(Value::from(n))
    }

    /// A cell that never changes: `true` or `false`.
    pub fn boolean(value: bool) -> Self {
        Self::Fixed(Value::Bool(value))
    }

    /// Age of an RFC 3339 instant; `<unknown>` where there is none.
    pub fn since(timestamp: &Value) -> Self {
        Self::since_text("", timestamp, "")
    }

    /// The time since `timestamp` between two texts.
    pub fn since_text(before: &str, timestamp: &Value, after: &str) -> Self {
        match timestamp.as_str().and_then(|t| t.parse().ok()) {
            Some(at) => Self::Since { before: before.into(), at, after: after.into() },
            None => Self::text(format!("{before}<unknown>{after}")),
        }
    }

    /// The name cell: `metadata.name`.
    pub fn name(object: &Value) -> Self {
        Self::text(object["metadata"]["name"].as_str().unwrap_or_default())
    }

    /// The age cell: since `metadata.creationTimestamp`.
    pub fn age(object: &Value) -> Self {
        Self::since(&object["metadata"]["creationTimestamp"])
    }

    /// The time when the object was created.
    pub fn created_at(object: &Value) -> Self {
        Self::text(object["metadata"]["creationTimestamp"].as_str().unwrap_or_default())
    }

    /// The cell as it stands in a Table answered at `now`.
    pub fn render(&self, now: Timestamp) -> Value {
        match self {
            Self::Fixed(value) => value.clone(),
            Self::Since { before, at, after } => {
                Value::String(format!("{before}{}{after}", human(now.as_second() - at.as_second())))
            }
        }
    }
}

/// A duration of whole seconds in Kubernetes' words (`duration.HumanDuration`): `45s`, `3m20s`, `26h`, `3d`.
pub fn human(seconds: i64) -> String {
    let with_rest = |n: i64, unit: &str, rest: i64, rest_unit: &str| {
        if rest == 0 { format!("{n}{unit}") } else { format!("{n}{unit}{rest}{rest_unit}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => with_rest(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => with_rest(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => with_rest(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => with_rest(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_writes_them() {
        for (seconds, words) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (601, "10m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 61, "3h1m"),
            (9 * 3600, "9h"),
            (49 * 3600, "2d1h"),
            (10 * 86400, "10d"),
            (800 * 86400, "2y70d"),
            (3000 * 86400, "8y"),
        ] {
            assert_eq!(human(seconds), words, "{seconds} s");
        }
    }

    #[test]
    fn an_age_is_told_from_the_time_of_the_answer() {
        let cell = Cell::since_text("3 (", &Value::from("2026-01-01T00:00:00Z"), " ago)");
        assert_eq!(cell.render("2026-01-01T00:01:00Z".parse().unwrap()), "3 (60s ago)");
        assert_eq!(Cell::since(&Value::Null).render(Timestamp::now()), "<unknown>");
    }
}
