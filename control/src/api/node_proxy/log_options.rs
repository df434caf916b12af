//! The options of a pod's log, read from the query and checked as Kubernetes checks `PodLogOptions`.

use jiff::Timestamp;

use crate::{
    api::{Status, Subject},
    kinds::{FieldError, FieldErrorReason},
    request::query::Query,
};

/// What part of which log is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Empty where the pod has only one.
    pub container: String,
    /// Goes on until the container ends.
    pub follow: bool,
    /// The container's run before the present one.
    pub previous: bool,
    /// Each line opens with its time.
    pub timestamps: bool,
    /// Lines of so many seconds back; not together with `since_time`.
    pub since_seconds: Option<i64>,
    /// Lines from then on.
    pub since_time: Option<Timestamp>,
    /// Lines from the end; all where it is absent.
    pub tail_lines: Option<i64>,
    /// After so many bytes the answer ends.
    pub limit_bytes: Option<i64>,
}

impl LogOptions {
    /// From the request's options. Errors name the option.
    pub fn of(query: &Query) -> Result<Self, Status> {
        let number = |name| query.parameter(name).map(|value| integer(name, value)).transpose();
        let time = query.parameter("sinceTime").map(str::parse).transpose();
        let options = Self {
            container: query.parameter("container").unwrap_or_default().to_owned(),
            follow: query.is_set("follow"),
            previous: query.is_set("previous"),
            timestamps: query.is_set("timestamps"),
            since_seconds: number("sinceSeconds")?,
            tail_lines: number("tailLines")?,
            limit_bytes: number("limitBytes")?,
            since_time: time.map_err(|error| Status::bad_request(format!("sinceTime: {error}")))?,
        };
        let errors = options.errors();
        if errors.is_empty() {
            Ok(options)
        } else {
            Err(Status::invalid(Subject { group: "", resource: "PodLogOptions", name: "" }, &errors))
        }
    }

    fn errors(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut at_least = |path: &str, value: Option<i64>, least: i64| {
            if let Some(value) = value.filter(|v| *v < least) {
                let message = match least {
                    0 => format!("Invalid value: {value}: must be greater than or equal to 0"),
                    _ => format!("Invalid value: {value}: must be greater than 0"),
                };
                errors.push(FieldError { path: path.into(), reason: FieldErrorReason::Invalid, message });
            }
        };
        at_least("tailLines", self.tail_lines, 0);
        at_least("limitBytes", self.limit_bytes, 1);
        at_least("sinceSeconds", self.since_seconds, 1);
        if self.since_seconds.is_some() && self.since_time.is_some() {
            errors.push(FieldError {
                path: String::new(),
                reason: FieldErrorReason::Forbidden,
                message: "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".into(),
            });
        }
        errors
    }

    /// The query for the agent; the container is in the path there.
    pub fn to_query(&self) -> String {
        let mut parts = Vec::new();
        for (name, on) in [("follow", self.follow), ("previous", self.previous), ("timestamps", self.timestamps)] {
            if on {
                parts.push(format!("{name}=true"));
            }
        }
        let numbers =
            [("sinceSeconds", self.since_seconds), ("tailLines", self.tail_lines), ("limitBytes", self.limit_bytes)];
        parts.extend(numbers.into_iter().filter_map(|(name, value)| value.map(|v| format!("{name}={v}"))));
        parts.extend(self.since_time.map(|time| format!("sinceTime={time}")));
        parts.join("&")
    }
}

fn integer(name: &str, value: &str) -> Result<i64, Status> {
    value.parse().map_err(|_| Status::bad_request(format!("{name}: {value:?} is not a whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<LogOptions, Status> {
        LogOptions::of(&Query::of(query))
    }

    #[test]
    fn what_kubectl_asks_for_reaches_the_agent() {
        let query = "container=c&follow=true&previous=&timestamps=false&tailLines=5&limitBytes=10&sinceSeconds=60";
        let options = read(query).unwrap();
        assert_eq!(options.container, "c");
        assert_eq!(options.to_query(), "follow=true&previous=true&sinceSeconds=60&tailLines=5&limitBytes=10");
        let options = read("sinceTime=2030-01-01T00%3A00%3A00Z").unwrap();
        assert_eq!(options.to_query(), "sinceTime=2030-01-01T00:00:00Z");
        assert_eq!(read("").unwrap(), LogOptions::default());
        let options = read("follow=f&follow=0&timestamps=FALSE&tailLines=1&tailLines=2").unwrap();
        assert_eq!(options.to_query(), "follow=true&tailLines=1", "the first counts, and f does not say no");
    }

    #[test]
    fn impossible_numbers_are_refused_by_name() {
        let status = read("tailLines=-1").unwrap_err();
        assert_eq!(status.code, 422);
        assert!(status.message.contains("tailLines: Invalid value: -1"), "{}", status.message);
        assert_eq!(read("limitBytes=0").unwrap_err().code, 422);
        assert_eq!(read("sinceSeconds=1&sinceTime=2030-01-01T00:00:00Z").unwrap_err().code, 422);
        assert_eq!(read("tailLines=many").unwrap_err().code, 400);
    }
}
