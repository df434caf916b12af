//! The options in a URL's query: ListOptions, GetOptions, DeleteOptions, CreateOptions and so on, read once.
//!
//! Of an option that is given twice the first counts, as in Go; `dryRun` is a list.

use std::{
    num::{IntErrorKind, ParseIntError},
    str::FromStr,
};

use super::selector::{FieldSelector, FieldSelectorError, LabelSelector, LabelSelectorError};
use crate::status::Status;

/// All options of a request; those that a verb does not know are ignored by it. Each field is the option of the same
/// name in `meta.k8s.io/v1`.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Every name and value, decoded, in the order of the text: what only one subresource knows (`container`,
    /// `tailLines`) is read from here.
    pub parameters: Vec<(String, String)>,
    /// Why an option cannot be read; all others are then left unread. Whoever is authorised is told so, as of what they
    /// ask for.
    pub malformed: Option<Status>,
    /// Selects everything where it is absent.
    pub label_selector: LabelSelector,
    /// Selects everything where it is absent.
    pub field_selector: FieldSelector,
    /// A `get` of a list becomes a `watch`.
    pub watch: bool,
    /// The client takes events of type `BOOKMARK`.
    pub allow_watch_bookmarks: bool,
    /// A watch begins with the objects that there are; decided by `resource_version` where it is absent.
    pub send_initial_events: Option<bool>,
    /// The version to start from, or to list at.
    pub resource_version: Option<Version>,
    /// How `resource_version` is meant in a list.
    pub resource_version_match: Option<VersionMatch>,
    /// Objects in one answer; the rest comes with `continue`.
    pub limit: Option<usize>,
    /// Token of an earlier answer, which says where the list goes on.
    pub r#continue: Option<String>,
    /// Length of a watch; the server's default where it is absent or 0.
    pub timeout_seconds: Option<u64>,
    /// Everything is checked and filled in, and nothing stored.
    pub dry_run: bool,
    /// What becomes of unknown and duplicate fields.
    pub field_validation: FieldValidation,
    /// How much of each object stands in a Table.
    pub include_object: IncludeObject,
    /// Of a deletion: what becomes of dependents.
    pub propagation_policy: Option<String>,
    /// The old form of `propagation_policy`.
    pub orphan_dependents: Option<bool>,
}

/// `resourceVersion`: `0` asks for any state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `0`: any state will do.
    Any,
    /// This revision.
    Of(u64),
    /// No number: refused by the verbs that read it.
    Malformed,
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// The state at that revision.
    Exact,
    /// That state or a later one.
    NotOlderThan,
    /// None that is known: refused by lists and watches.
    Unknown,
}

/// What becomes of unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped in silence.
    Ignore,
    /// Dropped, with a header `Warning`.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// What a Table's rows carry beside cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Each object's `metadata`.
    #[default]
    Metadata,
    /// Each whole object.
    Object,
    /// None that is known: refused where the answer is a Table.
    Unknown,
}

impl Query {
    /// The first value of a parameter, as it was sent.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a flag is set: it is there, and its first value does not say no.
    pub fn is_set(&self, name: &str) -> bool {
        self.parameter(name).is_some_and(boolean)
    }

    /// `gracePeriodSeconds`, which only a deletion without a body reads.
    pub fn grace_period_seconds(&self) -> Result<Option<i64>, Status> {
        optional(self.parameter("gracePeriodSeconds"))
    }

    /// The same for what outlives the request's answer: without the parameters as they were sent, which take up to
    /// twenty times the memory of their text.
    pub fn without_parameters(&self) -> Self {
        Self { parameters: Vec::new(), ..self.clone() }
    }

    /// Reads the text after the `?`.
    pub fn of(query: &str) -> Self {
        if query.is_empty() {
            return Self::default();
        }
        // However many: `exec` names each argument of its command, and a request that is sent on is sent on whole.
        let parameters: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let read = Self::read(&parameters);
        match read {
            Ok(query) => Self { parameters, ..query },
            Err(status) => {
                let watch = parameters.iter().find(|(key, _)| key == "watch").is_some_and(|(_, value)| boolean(value));
                Self { malformed: Some(status), watch, parameters, ..Self::default() }
            }
        }
    }

    /// All but the parameters themselves. Errors name the option.
    fn read(parameters: &[(String, String)]) -> Result<Self, Status> {
        let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let text = |name: &str| get(name).unwrap_or_default();
        let owned = |name: &str| get(name).filter(|value| !value.is_empty()).map(str::to_owned);
        Ok(Self {
            label_selector: text("labelSelector")
                .parse()
                .map_err(|error: LabelSelectorError| Status::bad_request(error.to_string()))?,
            field_selector: text("fieldSelector")
                .parse()
                .map_err(|error: FieldSelectorError| Status::bad_request(error.to_string()))?,
            watch: get("watch").is_some_and(boolean),
            allow_watch_bookmarks: get("allowWatchBookmarks").is_some_and(boolean),
            send_initial_events: get("sendInitialEvents").map(boolean),
            resource_version: match text("resourceVersion") {
                "" => None,
                "0" => Some(Version::Any),
                version => Some(version.parse().map_or(Version::Malformed, |revision: u64| match revision {
                    0 => Version::Any,
                    revision => Version::Of(revision),
                })),
            },
            resource_version_match: match text("resourceVersionMatch") {
                "" => None,
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                _ => Some(VersionMatch::Unknown),
            },
            limit: optional::<i64>(get("limit"))?
                .filter(|limit| *limit > 0)
                .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            r#continue: owned("continue"),
            // Zero and less ask for the server's default, as in Kubernetes.
            timeout_seconds: optional::<i64>(get("timeoutSeconds"))?
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0),
            dry_run: match parameters.iter().filter(|(key, _)| key == "dryRun").find(|(_, value)| value != "All") {
                None => get("dryRun").is_some(),
                Some((_, value)) if value.is_empty() => false,
                // Refused by the verbs that write.
                Some(_) => true,
            },
            field_validation: match text("fieldValidation") {
                "" | "Warn" => FieldValidation::Warn,
                "Strict" => FieldValidation::Strict,
                "Ignore" => FieldValidation::Ignore,
                // Refused by the verbs that write.
                _ => FieldValidation::Strict,
            },
            include_object: match text("includeObject") {
                "" | "Metadata" => IncludeObject::Metadata,
                "None" => IncludeObject::None,
                "Object" => IncludeObject::Object,
                _ => IncludeObject::Unknown,
            },
            propagation_policy: owned("propagationPolicy"),
            orphan_dependents: get("orphanDependents").map(boolean),
            ..Self::default()
        })
    }
}

/// As Kubernetes reads query booleans: whatever is there and does not say no.
fn boolean(text: &str) -> bool {
    text != "0" && !text.eq_ignore_ascii_case("false")
}

fn optional<T: FromStr<Err = ParseIntError>>(text: Option<&str>) -> Result<Option<T>, Status> {
    text.filter(|text| !text.is_empty()).map(number).transpose()
}

fn number<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, Status> {
    text.parse().map_err(|error: ParseIntError| {
        Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {}", number_error(&error)))
    })
}

/// What Go's `strconv` says of a text that is no number.
pub fn number_error(error: &ParseIntError) -> &'static str {
    match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}
