//! The options in a URL's query: ListOptions, GetOptions, DeleteOptions, CreateOptions and so on, read once.
//!
//! Of an option that is given twice the first counts, as in Go; `dryRun` is a list.

use super::selector::{FieldSelector, FieldSelectorError, LabelSelector, LabelSelectorError};
use crate::status::Status;

/// All options of a request; those that a verb does not know are ignored by it. Each field is the option of the same
/// name in `meta.k8s.io/v1`.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Every name and value, decoded, in the order of the text: what only one subresource knows (`container`,
    /// `tailLines`) is read from here.
    pub parameters: Vec<(String, String)>,
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
    /// Of a deletion; the object's own where it is absent.
    pub grace_period_seconds: Option<i64>,
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
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// The state at that revision.
    Exact,
    /// That state or a later one.
    NotOlderThan,
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
}

impl Query {
    /// Reads the text after the `?`. Errors name the option.
    pub fn of(query: &str) -> Result<Self, Status> {
        if query.is_empty() {
            return Ok(Self::default());
        }
        let parameters: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
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
            watch: boolean("watch", get("watch"))?.unwrap_or(false),
            allow_watch_bookmarks: boolean("allowWatchBookmarks", get("allowWatchBookmarks"))?.unwrap_or(false),
            send_initial_events: boolean("sendInitialEvents", get("sendInitialEvents"))?,
            resource_version: match text("resourceVersion") {
                "" => None,
                "0" => Some(Version::Any),
                version => Some(Version::Of(number("resourceVersion", version)?)),
            },
            resource_version_match: match text("resourceVersionMatch") {
                "" => None,
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                other => return Err(unsupported("resourceVersionMatch", other, "\"Exact\", \"NotOlderThan\"")),
            },
            limit: optional::<i64>("limit", get("limit"))?
                .filter(|limit| *limit > 0)
                .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            r#continue: owned("continue"),
            // Zero and less ask for the server's default, as in Kubernetes.
            timeout_seconds: optional::<i64>("timeoutSeconds", get("timeoutSeconds"))?
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0),
            dry_run: match parameters.iter().filter(|(key, _)| key == "dryRun").find(|(_, value)| value != "All") {
                None => get("dryRun").is_some(),
                Some((_, value)) if value.is_empty() => false,
                Some((_, other)) => return Err(unsupported("dryRun", other, "\"All\"")),
            },
            field_validation: match text("fieldValidation") {
                "" | "Warn" => FieldValidation::Warn,
                "Strict" => FieldValidation::Strict,
                "Ignore" => FieldValidation::Ignore,
                other => {
                    return Err(unsupported("fieldValidation", other, "\"\", \"Ignore\", \"Strict\", \"Warn\""));
                }
            },
            include_object: match text("includeObject") {
                "" | "Metadata" => IncludeObject::Metadata,
                "None" => IncludeObject::None,
                "Object" => IncludeObject::Object,
                other => return Err(unsupported("includeObject", other, "\"Metadata\", \"None\", \"Object\"")),
            },
            grace_period_seconds: optional("gracePeriodSeconds", get("gracePeriodSeconds"))?,
            propagation_policy: owned("propagationPolicy"),
            orphan_dependents: boolean("orphanDependents", get("orphanDependents"))?,
            parameters,
        })
    }
}

/// As Kubernetes reads query booleans: present and empty is true.
fn boolean(name: &str, text: Option<&str>) -> Result<Option<bool>, Status> {
    match text {
        None => Ok(None),
        Some("" | "true" | "True" | "TRUE" | "1" | "t") => Ok(Some(true)),
        Some("false" | "False" | "FALSE" | "0" | "f") => Ok(Some(false)),
        Some(other) => Err(Status::bad_request(format!("{name}: {other:?} is not a boolean"))),
    }
}

fn optional<T: std::str::FromStr>(name: &str, text: Option<&str>) -> Result<Option<T>, Status> {
    text.filter(|text| !text.is_empty()).map(|text| number(name, text)).transpose()
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Status> {
    text.parse()
        .map_err(|_| Status::bad_request(format!("{name}: Invalid value: {text:?}: strconv.ParseInt: invalid syntax")))
}

fn unsupported(name: &str, value: &str, supported: &str) -> Status {
    Status::bad_request(format!("{name}: Unsupported value: {value:?}: supported values: {supported}"))
}
